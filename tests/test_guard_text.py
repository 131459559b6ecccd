"""Captions: what identifies somebody is found, what does not is left alone, and what is redacted is gone."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.guard.redaction import redact
from regen_train.guard.text import caption_faults


def found(caption: str, *, names: tuple[str, ...] = (), ocr: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(finding.kind, finding.text) for finding in caption_faults(caption, names=names, ocr=ocr)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "jane.doe+x@mail.example.co.uk"),
        ("email", "jane at gmail dot com"),
        ("email", "jane [at] gmail [dot] com"),
        ("url", "https://example.com/jane?x=1"),
        ("url", "www.jane-doe.de"),
        ("url", "HTTP://JANE.EXAMPLE/"),
        ("url", "janedoe.com"),
        ("url", "tube.example.io/@jane"),
        ("url", "janedoe dot com"),
        ("handle", "@jane_doe"),
        ("handle", "＠jane"),  # noqa: RUF001
        ("handle", "@99problems"),
        ("handle", "#janedoe99"),
        ("phone", "+1 (415) 555-2671"),
        ("phone", "415-555-2671"),
        ("phone", "415.555.2671"),
        ("phone", "4155552671"),
        ("phone", "(020) 7946 0958"),
        ("phone", "+49 30 901820"),
        ("phone", "+49-30/901820"),
        ("phone", "0049 30 901820"),
        ("phone", "555-0199"),
        ("phone", "06 12 34 56 78"),
        ("phone", "06\u201312\u201334\u201356\u201378"),
        ("phone", "+376 312 345"),
        ("phone", "０２０ ７９４６ ０９５８"),  # noqa: RUF001
        ("phone", "2024-05-12"),  # a date burnt into the picture; no number of people looks like that
        ("plate", "AB12 CDE"),
        ("plate", "B-MW 1234"),
        ("plate", "ABC-1234"),
        ("plate", "KA 01 AB 1234"),
        ("plate", "7ABC123"),
        ("plate", "1234 BCD"),
        ("number", "90210"),
    ],
)
@pytest.mark.parametrize(
    "sentence", ["{}", "A man shows {} to the camera.", 'The wall reads "{}".', "It is {}, he says."]
)
def test_what_identifies_is_found_whole(kind: str, text: str, sentence: str) -> None:
    assert found(sentence.format(text)) == [(kind, text)]


@pytest.mark.parametrize(
    "caption",
    [
        "3 people in 2024 and 480x832 frames at 30 fps, 1080p or 4K",
        "A man in a white T-shirt talks of COVID-19, WD-40 and 7UP beside a BMW",
        "From 1990-2000 about 10,000 people came, at 12:30:45, in 16:9, at f/2.8 and 3.14159",
        "A 1950s car with a V8 engine, an MP4 player and an A4 page",
        "A 1000 piece puzzle lies on the table @ 30 fps with #1 fans",
        "He looks at him. It is in the room.The man waits. He sits on it.In the back stands a woman",
        "two rows of 20 chairs, 10 tables, 5 lamps; a 24-70 mm lens, 100 m away in 2019. 3 women wave",
        "Somebody in a bomber-style jacket walks past a twenty-one-storey tower, 2-3 steps at a time.",
        "Four people sit at tables in a classroom with blue chairs.",
        "Black-and-white footage of two people standing and talking on a street beside a stone pillar and a lawn.",
    ],
)
def test_what_identifies_nobody_is_left_alone(caption: str) -> None:
    assert found(caption) == []
    assert redact(caption, []) == caption


def test_names_are_found_with_their_parts_but_not_inside_words() -> None:
    caption = "Maria Lopez waves. Lopez's dog will run. Will follows Lopezian art and the lopez."
    assert found(caption, names=("Maria Lopez", "Will")) == [
        ("name", "Maria Lopez"),
        ("name", "Lopez"),
        ("name", "Will"),
    ]
    assert found("Ana de la Cruz on la playa", names=("Ana de la Cruz",)) == [("name", "Ana de la Cruz")]
    assert found("O\u2019Brien nods", names=("O'Brien",)) == [("name", "O\u2019Brien")]
    assert found("A man nods", names=("", " ")) == []


@pytest.mark.parametrize(
    ("caption", "ocr", "text"),
    [
        ("A man in front of Rosie's Corner waits", "ROSIES CORNER", "Rosie's Corner"),
        ("A man in front of Rosie's Corner waits", "RosiesCorner", "Rosie's Corner"),
        ("He wears a Quicksilver shirt", "QUICK SILVER", "Quicksilver"),
        ("Player 23 runs", "23", "23"),
        ("On the badge stands Tom", "tom", "Tom"),
        ("The label says JÖRG", "Jörg", "JÖRG"),
        ("The label says Jörg", "Jo\u0308rg", "Jörg"),
        ("It says Hal9 there", "hal9", "Hal9"),
    ],
)
def test_what_ocr_reads_too_is_found(caption: str, ocr: str, text: str) -> None:
    assert found(caption, ocr=("12", ocr)) == [("readable", text)]


@pytest.mark.parametrize("ocr", ["A MAN IN FRONT OF", "The street", "EXIT", "a", "5", "RUN", "Rosie", "AMAN"])
def test_common_and_short_words_do_not_count(ocr: str) -> None:
    assert found("A man in front of the exit sign on the street takes a run of 5 steps", ocr=(ocr,)) == []


def test_runs_of_words_end_at_other_marks() -> None:
    assert found("Rosie, Corner", ocr=("RosieCorner",)) == []
    assert found("Rosie. Corner", ocr=("RosieCorner",)) == []


def test_findings_do_not_overlap() -> None:
    assert found("He calls Tomtom 415-555-2671 now", ocr=("TOMTOM 415",)) == [("readable", "Tomtom 415-555-2671")]
    findings = caption_faults("Write to jane.doe@example.com or Jane", names=("Jane", "jane.doe"), ocr=("EXAMPLE",))
    assert [(f.kind, f.text) for f in findings] == [("email", "jane.doe@example.com"), ("name", "Jane")]
    assert all(before.end <= after.start for before, after in itertools.pairwise(findings))


@pytest.mark.parametrize(
    ("caption", "names", "ocr", "expected"),
    [
        (
            "Maria Lopez walks with John along a lane. Later Lopez waves. The bench is blue.",
            ("Maria Lopez", "John"),
            (),
            "A person walks with another person along a lane. The bench is blue.",
        ),
        ("Tim waits. Then Tim leaves.", ("Tim",), (), "A person waits. Then the person leaves."),
        ("A man named John Smith rides a bike.", ("John Smith",), (), "A man rides a bike."),
        ("Mr. Smith's dog follows Dr. Jones.", ("Smith", "Jones"), (), "A person's dog follows another person."),
        ("The video shows Mr Smith in a park.", ("Smith",), (), "The video shows a person in a park."),
        ("He waits for the Johnson there.", ("Johnson",), (), "He waits for the person there."),
        ('A shop with a sign reading "Rosie\'s" stands there.', (), ("ROSIES",), "A shop with a sign stands there."),
        (
            'A shop with a sign that reads "Come to Rosie\'s today!" stands there.',
            (),
            ("ROSIES TODAY",),
            "A shop with a sign stands there.",
        ),
        (
            'A shop with a sign reading "Rosie\'s at 90210 Main" stands there.',
            (),
            ("ROSIES",),
            "A shop with a sign stands there.",
        ),
        ("He sees Bob. Alice Smith waits. A man walks on and on.", ("Bob. Alice Smith",), (), "A man walks on and on."),
        ("He meets person here. A man walks.", ("person",), (), None),
        ("A car with the number plate AB12 CDE passes a man.", (), (), "A car passes a man."),
        ("A man waits. Call 415-555-2671 now. He wears a coat.", (), (), "A man waits. He wears a coat."),
        ("He greets a young Maria. A man waits for a bus.", ("Maria",), (), "A man waits for a bus."),
        ("A man points at @jane_doe on a wall.", (), (), None),
        ("jane@example.com", (), (), None),
        ("A man. Then follow @jane_doe on all of the many walls of the town.", (), (), None),
    ],
)
def test_findings_are_redacted(
    caption: str, names: tuple[str, ...], ocr: tuple[str, ...], expected: str | None
) -> None:
    text = redact(caption, caption_faults(caption, names=names, ocr=ocr))
    assert text == expected
    assert text is None or not caption_faults(text, names=names, ocr=ocr)


_PIECES = """
Maria Lopez Tom and the a smiling walks named Mr. with reading . , ! " ' ( ) - \u201c \u201d @tom #wow23 t@a.org a.com/x
+1 415 555-2671 AB12 CDE 90210 1990-2000 Rosie's Corner exit he sees person another 12
"""
_WORDS = st.sampled_from([*_PIECES.split(), "\n"])
_CAPTIONS = st.lists(_WORDS, min_size=1, max_size=40).map(" ".join) | st.text(max_size=60)


@given(_CAPTIONS, st.lists(_WORDS | st.text(max_size=8), max_size=3), st.lists(_CAPTIONS, max_size=2))
@settings(max_examples=300, deadline=None)
def test_nothing_that_was_found_is_left(caption: str, names: list[str], ocr: list[str]) -> None:
    findings = caption_faults(caption, names=names, ocr=ocr)
    assert all(caption[finding.start : finding.end] == finding.text for finding in findings)
    text = redact(caption, findings)
    if text is not None and findings:
        assert caption_faults(text, names=[f.text for f in findings if f.kind == "name"]) == []
        assert not any(finding.text in text for finding in findings if finding.kind not in ("name", "readable"))
        assert len(text.split()) <= len(caption.split()) + 2 * len(findings)


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a-", "1 ", "(1)", "1", "@", "a@a.", "www.", "reading ", ', known as "', "! "]
)
def test_hostile_captions_take_no_time(piece: str) -> None:
    caption = piece * (20_000 // len(piece)) + "x"
    begin = time.perf_counter()
    redact(caption, caption_faults(caption, names=("Bob",), ocr=("aa",)))
    assert time.perf_counter() - begin < 5
