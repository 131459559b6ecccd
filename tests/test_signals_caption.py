"""Captions: a tiny Qwen3-VL runs, its answers are held to length and filter; captions of tables are looked up."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from moving_people import draw_people
from torch import Tensor

from regen_train.guard import Boxes
from regen_train.signals import CaptionSource
from regen_train.signals.caption import CaptionFiles, MetadataCaptions, Qwen3VlCaptions, write_caption
from regen_train.signals.caption.filter import CaptionFilter, plain
from regen_train.signals.caption.frames import spread_frames
from regen_train.video import write_video

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "part_0" / "dQw4w9WgXcQ-10-15.mkv"
    path.parent.mkdir()
    write_video(path, draw_people(num_frames=20).frames, 10, codec="ffv1")
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL with random weights, and a tokenizer that knows bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    folder = tmp_path_factory.mktemp("qwen3vl")
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=list(SPECIAL))
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    # as the published model has it: sampling by default, which captions must not follow
    model.generation_config.update(
        do_sample=True, temperature=0.7, top_p=0.8, eos_token_id=[ids["<|im_end|>"]], pad_token_id=ids["<|endoftext|>"]
    )
    model.save_pretrained(folder)
    size = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, temporal_patch_size=2, merge_size=2, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


class Names:
    """Finds Maria and John."""

    def setup(self, device: str) -> None:
        self.device = device

    def identity(self) -> dict[str, Any]:
        return {"finder": "Names"}

    def find(self, text: str) -> list[str]:
        return re.findall(r"Maria Lopez|Maria|John", text)


class Reader:
    """Reads the same words in every frame."""

    def setup(self, device: str) -> None:
        self.device = device

    def identity(self) -> dict[str, Any]:
        return {"detector": "Reader"}

    def detect(self, frames: Tensor) -> list[Boxes]:
        assert frames.shape[1:] == (48, 64, 3)
        return [Boxes(torch.zeros(1, 4), torch.ones(1), ("ACME STORES",)) for _ in frames]


def words(count: int, *extra: str) -> str:
    return " ".join([*extra, *["walks"] * (count - len(extra) - 1), "on."])


def answering(monkeypatch: pytest.MonkeyPatch, source: Qwen3VlCaptions, answers: Sequence[str]) -> list[Any]:
    """Let the model say the answers, one after another; return the list that fills with what it was asked."""
    asked: list[Any] = []
    replies: Iterator[str] = iter(answers)

    def answer(messages: Any) -> tuple[str, bool]:
        asked.append(messages)
        reply = next(replies)
        return plain(reply.removesuffix("<CUT>")), not reply.endswith("<CUT>")

    monkeypatch.setattr(source, "_answer", answer)
    return asked


# --- Qwen3-VL


def test_a_real_tiny_model_speaks_and_repeats_itself(qwen: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.signals.caption.qwen3vl._MAX_NEW_TOKENS", 24)
    source = Qwen3VlCaptions(str(qwen), precision="fp32", words=(1, 400), max_attempts=1)
    captions: CaptionSource = source
    captions.setup("cpu")
    answers = [source._answer(source._question(spread_frames(clip, 8))) for _ in range(2)]
    assert answers[0] == answers[1]
    text, whole = answers[0]
    assert text == plain(text) != ""
    assert not whole  # random weights never come to an end
    with pytest.raises(
        ValueError, match=r"no fit caption in 1 attempts: each was not 1 to 400 words long, or told who"
    ):
        captions.caption(clip)


def test_the_model_sees_the_frames_in_order(qwen: Path, clip: Path) -> None:
    source = Qwen3VlCaptions(str(qwen), precision="fp32")
    source.setup("cpu")
    frames = spread_frames(clip, 8)
    logits = []
    for shown in (frames, frames, frames[::-1]):
        inputs = source._processor.apply_chat_template(
            source._question(shown), tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits.append(source._model(**inputs).logits[0, -1])
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_an_answer_that_ends_is_whole(qwen: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Qwen3VlCaptions(str(qwen), precision="fp32", words=(2, 9))
    source.setup("cpu")
    asked: dict[str, Any] = {}

    def generate(**inputs: Any) -> Tensor:
        asked.update(inputs)
        spoken = source._processor.tokenizer.encode("A person\nwaits. <|im_end|>")
        return torch.cat([inputs["input_ids"], torch.tensor([spoken])], dim=1)

    monkeypatch.setattr(source._model, "generate", generate)
    assert source.caption(clip) == "A person waits."
    settings = source._model.generation_config
    assert (settings.do_sample, asked["max_new_tokens"]) == (False, 400)
    assert settings.eos_token_id == [source._processor.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert asked["image_grid_thw"].shape == (8, 3)
    prompt = source._processor.decode(asked["input_ids"][0])
    assert "8 frames" in prompt
    assert "2 to 9 words" in prompt
    assert "Never name a person" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


def test_an_unfit_answer_is_asked_for_again_with_its_reasons(
    qwen: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Qwen3VlCaptions(str(qwen), names=Names(), text=Reader(), max_attempts=5)
    good = words(130, "A", "person")
    bad = [words(90), words(300) + "<CUT>", words(130, "Maria"), words(130, "At", "Acme", "Stores", "AB12", "CDE")]
    asked = answering(monkeypatch, source, [*bad, good])
    assert source.caption(clip) == good
    last = [message["content"][0].get("text") for message in asked[-1]]
    assert last[1] == bad[0]
    assert (
        last[2]
        == "That cannot be used: it has 90 words. Write the whole paragraph again, 120 to 160 words, without that."
    )
    assert "it has 300 words; it was cut off." in last[4]
    assert "it names 'Maria'." in last[6]
    assert (
        "it repeats text of the picture, 'Acme Stores'; it spells out what looks like a licence plate, 'AB12 CDE'"
        in last[8]
    )
    assert [message["role"] for message in asked[-1]] == ["user", *["assistant", "user"] * 4]
    assert [len(messages) for messages in asked] == [1, 3, 5, 7, 9]
    assert [part["type"] for part in asked[-1][0]["content"]] == ["image"] * 8 + ["text"]


def test_if_nothing_else_helps_names_are_taken_out(qwen: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Qwen3VlCaptions(str(qwen), names=Names(), max_attempts=2)
    named = "A woman meets Maria. " + words(130)
    answering(monkeypatch, source, [words(90), named])
    assert source.caption(clip) == "A woman meets a person. " + words(130)


@pytest.mark.parametrize(
    "answers",
    [
        ["", ""],
        [words(119), words(161)],
        ["Maria " + words(130), "John " + words(130)],  # one sentence each: it goes, and nothing is left
        ["A woman meets smiling Maria today. " + words(116), words(119)],  # too short without it
        [words(140) + "<CUT>", words(140) + "<CUT>"],
    ],
)
def test_without_a_fit_answer_there_is_no_caption(
    qwen: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    source = Qwen3VlCaptions(str(qwen), names=Names(), max_attempts=2)
    monkeypatch.setattr("regen_train.guard.redaction._BEFORE", re.compile("meets $"))
    answering(monkeypatch, source, answers)
    with pytest.raises(ValueError, match="no fit caption in 2 attempts") as caught:
        source.caption(clip)
    assert "Maria" not in str(caught.value)


def test_identity_follows_settings_and_weights(qwen: Path) -> None:
    plain_one = Qwen3VlCaptions(str(qwen)).identity()
    assert json.loads(json.dumps(plain_one)) == plain_one
    assert (plain_one["names"], plain_one["text"]) == (None, None)
    assert str(qwen) not in json.dumps(plain_one)
    changed = (
        Qwen3VlCaptions(str(qwen), words=(50, 160)),
        Qwen3VlCaptions(str(qwen), max_attempts=1),
        Qwen3VlCaptions(str(qwen), precision="fp32"),
        Qwen3VlCaptions(str(qwen), names=Names()),
    )
    assert all(source.identity() != plain_one for source in changed)


def test_helpers_are_set_up_too(qwen: Path) -> None:
    names, text = Names(), Reader()
    Qwen3VlCaptions(str(qwen), precision="fp32", names=names, text=text).setup("cpu")
    assert (names.device, text.device) == ("cpu", "cpu")


def test_what_qwen_needs_is_said(qwen: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"hf download Qwen/Qwen3-VL-8B-Instruct`.*; or use MetadataCaptions or Cap"
    ):
        Qwen3VlCaptions().setup("cpu")
    with pytest.raises(ValueError, match=r"got \(160, 120\) and 3"):
        Qwen3VlCaptions(str(qwen), words=(160, 120)).setup("cpu")
    with pytest.raises(ValueError, match="max_attempts at least 1"):
        Qwen3VlCaptions(str(qwen), max_attempts=0).setup("cpu")


def test_frames_are_spread_evenly(clip: Path) -> None:
    frames = draw_people(num_frames=20).frames
    for count, limit, expected in (
        (8, None, [0, 3, 5, 8, 11, 14, 16, 19]),
        (8, 8, list(range(8))),
        (8, 3, [0, 1, 2]),
        (2, 1, [0]),
    ):
        found = spread_frames(clip, count, max_frames=limit)
        assert [bool((frames[index].numpy() == frame).all()) for index, frame in zip(expected, found, strict=True)] == [
            True
        ] * len(expected)


# --- tables

CAPTION = "A woman cuts bread in a kitchen."


def table(folder: Path, rows: Sequence[dict[str, Any]], ending: str = "csv") -> Path:
    import csv

    path = folder / f"captions.{ending}"
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def looked_up(path: Path, clip: Path, **settings: Any) -> str:
    source: CaptionSource = MetadataCaptions(path, **settings)
    source.setup("cpu")
    return source.caption(clip)


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_captions_of_a_table(tmp_path: Path, clip: Path, ending: str) -> None:
    rows = [
        {"path": "aaaaaaaaaaa-0-5.mp4", "text": "Another clip.", "fps": "30"},
        {"path": "dQw4w9WgXcQ-10-15.mp4", "text": f'{CAPTION}\n"Quoted, with commas."', "fps": "30"},
    ]
    assert looked_up(table(tmp_path, rows, ending), clip) == f'{CAPTION} "Quoted, with commas."'


@pytest.mark.parametrize(
    "path",
    ["dQw4w9WgXcQ-10-15", "videos/dQw4w9WgXcQ-10-15.MP4", "D:\\clips\\dQw4w9WgXcQ-10-15.mkv", " dQw4w9WgXcQ-10-15 "],
)
def test_clips_are_matched_by_file_name(tmp_path: Path, clip: Path, path: str) -> None:
    rows = [{"video_id": path, "prompt": CAPTION}, {"video_id": "dQw4w9WgXcQ-10-1", "prompt": "x"}]
    found = looked_up(table(tmp_path, rows), clip, path_column="video_id", caption_column="prompt")
    assert found == CAPTION


def test_folders_tell_clips_of_one_name_apart(tmp_path: Path, clip: Path) -> None:
    name = clip.name
    rows = [{"path": f"x/part_{number}/{name}", "text": f"Clip {number}."} for number in (1, 0)]
    assert looked_up(table(tmp_path, rows), clip) == "Clip 0."
    rows = [{"path": name, "text": CAPTION}] * 2
    assert looked_up(table(tmp_path, rows), clip) == CAPTION  # the same twice is no contradiction
    rows = [{"path": name, "text": CAPTION}, {"path": name, "text": "Another."}]
    with pytest.raises(ValueError, match=r"captions\.csv has 2 different captions for dQw4w9WgXcQ-10-15\.mkv"):
        looked_up(table(tmp_path, rows), clip)


def test_a_clip_that_is_not_listed_is_named(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(ValueError, match=r"captions\.csv has no caption for dQw4.*: no 'path' has that file name; add"):
        looked_up(table(tmp_path, [{"path": "other.mp4", "text": CAPTION}]), clip)


def test_captions_of_a_table_pass_the_filter(tmp_path: Path, clip: Path) -> None:
    def found(text: str) -> str:
        return looked_up(table(tmp_path, [{"path": clip.name, "text": text}]), clip, names=Names(), text=Reader())

    assert found(f"Maria Lopez waves. {CAPTION}") == f"A person waves. {CAPTION}"
    assert (
        found(f"{CAPTION} The shop is Acme. She is at work in the morning.")
        == f"{CAPTION} She is at work in the morning."
    )
    assert found("A wo\u200bman\u00a0waits at the cafe\u0301.") == "A woman waits at the caf\u00e9."
    with pytest.raises(ValueError, match=r"tells who somebody is \(1 x email, 1 x text of the picture\)") as caught:
        found("Write to jane@example.com of Acme.")
    assert "jane" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("content", "ending", "message"),
    [
        ("path,caption\na.mp4,hello\n", "csv", r"line 2 has no text in 'text'.*name other columns with"),
        (
            "path,text\na.mp4\nb.mp4,\n,hello\n",
            "csv",
            r"line 2 has.*'text'; line 3 has.*'text'; line 4 has no text in 'path'",
        ),
        ('path,text\na.mp4,"never closed\n', "csv", "is damaged: unexpected end of data"),
        ("", "csv", None),
        ("[1", "json", "is damaged"),
        ("{}", "json", "must hold a list of objects, got dict"),
        (
            '[1, {"path": 1, "text": "a"}]',
            "json",
            r"entry 0 has no text in 'path' and 'text'; entry 1 has no text in 'path'",
        ),
        ('{"path": "a", "text": "b"}\n{', "jsonl", "is damaged"),
        ("\xff", "jsonl", "is damaged"),
        ("x", "txt", r"must be a \.csv, \.json or \.jsonl file"),
    ],
)
def test_faults_of_a_table_are_named(
    tmp_path: Path, clip: Path, content: str, ending: str, message: str | None
) -> None:
    path = tmp_path / f"captions.{ending}"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message or "has no caption for"):
        looked_up(path, clip)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no table of captions at"):
        MetadataCaptions(tmp_path / "none.csv").setup("cpu")


def test_identity_follows_the_table(tmp_path: Path) -> None:
    path = table(tmp_path, [{"path": "a.mp4", "text": CAPTION}])
    before = MetadataCaptions(path).identity()
    assert json.loads(json.dumps(before)) == before
    assert str(tmp_path) not in json.dumps(before)
    assert MetadataCaptions(path, names=Names()).identity() != before
    table(tmp_path, [{"path": "a.mp4", "text": f"{CAPTION}!"}])
    assert MetadataCaptions(path).identity() != before


# --- files and filter


def test_captions_of_files(tmp_path: Path, clip: Path) -> None:
    (tmp_path / clip.stem).mkdir()
    write_caption(tmp_path / clip.stem / "caption.txt", CAPTION)
    source: CaptionSource = CaptionFiles(tmp_path)
    source.setup("cpu")
    assert source.caption(clip, max_frames=5) == CAPTION
    assert source.identity() == {"extractor": "files"}


def test_what_cannot_be_cleaned_is_refused() -> None:
    class Insatiable(Names):
        def find(self, text: str) -> list[str]:
            return text.split()[:1]

    assert CaptionFilter(names=Insatiable()).clean("Maria waits. A man walks.", ()) is None
    assert CaptionFilter(names=Names()).clean("Maria waits. A man walks.", ()) == "A person waits. A man walks."
    assert CaptionFilter().clean("Maria waits.", ()) == "Maria waits."
    assert CaptionFilter().identity() == {"names": None, "text": None}
