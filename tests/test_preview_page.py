"""The page's text and model; what a browser makes of it is in test_preview_page_browser.py."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regen_train.guard import format_frames
from regen_train.preparation.preview import PageItem, Reason, choose_frames, page_text, reasons_of_report, without_names

EVIL = "</script><script>document.title='harm'</script><img src=x onerror=alert(1)>&amp;\u2028\"'"
ITEM = PageItem(
    key="0" * 24 + "-0000",
    verdict="reject",
    reasons=(Reason("mask_missing", "reject", (3, 4, 5, 9), {"covered": 0.41}, f"uncovered in {EVIL}"),),
    name=EVIL,
    caption=EVIL,
    frames=(0, 4, 9),
    ends=(4, 8, 10),
    frame_size=(90, 160),
    strips={"mask": "pictures/a/mask.webp"},
)


class _Parsed(HTMLParser):
    """What a parser sees: tags with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + data


def listed(text: str) -> list[dict]:
    return json.loads(_Parsed(text).texts["data"])


def test_what_a_clip_is_named_stays_text() -> None:
    page = page_text([ITEM], title=EVIL, source=True)
    plain = page_text([], title="", source=True)
    assert [tag for tag, _ in _Parsed(page).tags] == [tag for tag, _ in _Parsed(plain).tags]
    assert listed(page)[0]["name"] == EVIL
    assert "<script>document" not in page
    assert "<img" not in page


def test_the_page_names_nothing_outside_itself() -> None:
    page = page_text([ITEM], title="t", source=True)
    assert re.findall(r"(?:https?:)?//[a-z]", page) == []
    assert all(not {"src", "href"} & set(attributes) for _, attributes in _Parsed(page).tags)


def test_only_the_pages_own_script_and_style_may_run() -> None:
    parsed = _Parsed(page_text([ITEM], title="t", source=True))
    policy = next(dict(a)["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.texts[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_a_page_without_source_holds_no_free_text() -> None:
    hidden = "jane-doe.mp4"
    reason = Reason(hidden, "reject", (7,), {"covered": 0.5, hidden: 1.0}, f"cannot read {hidden}")
    item = PageItem("k", "failed", (reason,), name=hidden, caption=f"this is {hidden}", notes=("9x32x48",))
    assert hidden in page_text([item], title="t", source=True)
    page = page_text([item], title="t", source=False)
    assert hidden not in page
    assert "without source pixels" in page
    kept = listed(page)[0]["reasons"][0]
    assert kept == {"check": "other", "severity": "reject", "frames": "7", "measured": "covered 0.5", "message": ""}
    assert without_names(ITEM).reasons[0].check == "mask_missing"


def test_flagged_frames_are_marked_by_their_place() -> None:
    assert listed(page_text([ITEM], title="t", source=True))[0]["flagged"] == {
        "0": "mask_missing",
        "1": "mask_missing",
        "2": "mask_missing",
    }
    noted = PageItem("k", "accept", (Reason("repaired", "note", (0, 4, 9)),), frames=(0, 4, 9), ends=(1, 5, 10))
    assert listed(page_text([noted], title="t", source=True))[0]["flagged"] == {}


def test_reasons_of_a_report_stand_gravest_first() -> None:
    finding = {"check": "repaired", "severity": "note", "frames": [1], "measured": {"pixels": 3}, "message": "holes"}
    grave = {"check": "missing", "severity": "reject", "frames": [], "measured": {}, "message": ""}
    doubtful = {"check": "absent", "severity": "review"}
    reasons = reasons_of_report({"verdict": "reject", "findings": [finding, doubtful, grave]})
    assert [reason.check for reason in reasons] == ["missing", "absent", "repaired"]
    assert reasons[2] == Reason("repaired", "note", (1,), {"pixels": 3.0}, "holes")
    assert reasons_of_report({"verdict": "unchecked", "reasons": ["no gate"]}) == ()


@pytest.mark.parametrize(
    "finding", [{}, {"check": "a", "severity": "fatal"}, {"check": "a", "severity": "note", "frames": 3}, 5]
)
def test_no_report_is_refused(finding: object) -> None:
    with pytest.raises(ValueError, match="this is no guard report"):
        reasons_of_report({"findings": [finding]})


def test_frame_numbers_are_told_as_runs() -> None:
    assert format_frames([9, 3, 4, 5, 5, 14]) == "3-5, 9, 14"
    assert format_frames([]) == ""


@pytest.mark.parametrize(
    ("flagged", "chosen"),
    [
        ((), [0, 4, 8, 12, 16, 20]),
        ((26,), [0, 4, 8, 13, 16, 20]),
        ((27,), [0, 4, 8, 13, 16, 20]),
        ((41,), [0, 4, 8, 12, 16, 20]),
        (range(10, 40), [0, 4, 8, 12, 16, 20]),
        (range(18, 24), [0, 4, 9, 10, 11, 20]),
        ((40, 41, 42), [0, 4, 8, 12, 16, 20]),
        ((99,), [0, 4, 8, 12, 16, 20]),
    ],
)
def test_flagged_frames_are_shown_among_evenly_spread_ones(flagged: range | tuple[int, ...], chosen: list[int]) -> None:
    window = range(0, 42, 2)
    assert choose_frames(window, flagged, count=6) == chosen


@given(st.integers(1, 60), st.sets(st.integers(0, 80)), st.integers(1, 8))
def test_as_many_frames_as_asked_for_are_shown(length: int, flagged: set[int], count: int) -> None:
    places = choose_frames(range(length), flagged, count=count)
    assert places == sorted(set(places))
    assert len(places) == min(length, count)
    assert all(0 <= place < length for place in places)
    shown = {frame for frame in flagged if frame < length}
    assert not shown or shown & set(places)
