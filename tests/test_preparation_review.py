"""Nothing doubtful or rejected reaches a shard, until a person releases it, and for no other clip and masks."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_sources import SIGN
from moving_people import People, draw_people, write_people

from data_prep import run
from regen_train.preparation.ledger import LedgerRow, read_ledger
from regen_train.schema import Sample
from regen_train.shards import ShardReader

Run = Callable[..., int]
DOUBT = ("--guard.when_absent", "review")


def spoil(people: People, frames: range) -> People:
    """Take the mask away where the person goes on to be seen."""
    mask = people.mask.clone()
    mask[frames] = 0
    return People(people.frames, mask, people.poses, people.depth)


def nobody(people: People) -> People:
    """Leave the wall alone."""
    wall = people.frames.min(dim=0).values.repeat(len(people.frames), 1, 1, 1)
    keypoints = torch.full_like(people.poses.keypoints, torch.nan)
    poses = type(people.poses)(keypoints, torch.zeros_like(people.poses.scores))
    return People(wall, torch.zeros_like(people.mask), poses, people.depth)


@pytest.fixture
def prepare(tiny_model: Path, tmp_path: Path) -> Run:
    """Run a preparation of ``clips``, with more options."""
    arguments = [
        *("--clips", str(tmp_path / "clips"), "--output", str(tmp_path / "dataset")),
        *("--pretrained", str(tiny_model), "--salt_file", str(tmp_path / "salt")),
        *("--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2"),
        *("--num_workers", "0", "--threads", "1"),
    ]

    def main(*extra: str) -> int:
        given = extra if "--guard.when_absent" in extra else (*extra, "--guard.when_absent", "accept")
        return run.main([*arguments, *given])

    return main


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips of two windows each; the second window of ``open`` shows a person without a mask."""
    write_people(tmp_path / "clips", "good", draw_people(seed=1))
    write_people(tmp_path / "clips", "open", spoil(draw_people(seed=2), range(10, 20)))
    return tmp_path / "clips"


def samples(tmp_path: Path) -> list[Sample]:
    reader = ShardReader(str(tmp_path / "dataset"))
    return [reader.read(number) for number in range(len(reader))]


def windows(tmp_path: Path) -> list[LedgerRow]:
    return [row for row in read_ledger(tmp_path / "dataset" / ".work") if row.stage == "window"]


def review_list(tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "dataset" / ".work" / "quarantine" / "review.csv"
    return list(csv.DictReader(path.read_text().splitlines()))


def answer(tmp_path: Path, word: str, *, clip: str = "") -> None:
    """Enter a word for the windows of a clip, or of all."""
    path, rows = tmp_path / "dataset" / ".work" / "quarantine" / "review.csv", review_list(tmp_path)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | ({"release": word} if clip in row["clip"] else {}) for row in rows)


def test_a_rejected_window_never_reaches_a_shard(
    prepare: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare() == 0
    said = capsys.readouterr().out
    assert "open.mkv  part     1 of 5x32x48" in said
    assert "frames 10-18 rejected: " in said
    assert "windows: 3 passed, 1 rejected" in said
    found = samples(tmp_path)
    assert len(found) == 3
    assert {sample.info["guard"]["verdict"] for sample in found} == {"accept"}
    (rejected,) = [row for row in windows(tmp_path) if row.status == "rejected"]
    assert (rejected.clip, rejected.first_frame, rejected.last_frame) == ("open.mkv", 10, 18)
    assert json.loads(rejected.verdict)["verdict"] == "reject"
    assert rejected.reason in said
    assert rejected.result not in {sample.key for sample in found}
    assert prepare("--review") == 0  # rejected is not doubtful
    assert not (tmp_path / "dataset" / ".work" / "quarantine").exists()


def test_a_window_that_passed_leaves_when_thresholds_or_signals_change(
    prepare: Run, clips: Path, tmp_path: Path
) -> None:
    """Though its entry still lies in the work folder; it comes back with the old settings, and is not made again."""
    assert prepare() == 0
    before = {sample.key for sample in samples(tmp_path)}
    entries = {path.name: path.read_bytes() for path in (tmp_path / "dataset" / ".work").glob("*.safetensors")}
    assert prepare(*DOUBT) == 1
    assert all((tmp_path / "dataset" / ".work" / name).read_bytes() == data for name, data in entries.items())
    assert prepare("--guard.no_human", "drop") == 0
    good, other = clips / "signals" / "good", clips / "signals" / "other"
    good.rename(other)
    write_people(clips, "good", spoil(draw_people(seed=1), range(10)))
    assert prepare() == 0
    left = {sample.key for sample in samples(tmp_path)}
    assert len(left) == 2
    assert left < before


def test_every_window_is_in_the_ledger_with_its_verdict_also_if_it_was_kept(
    prepare: Run, clips: Path, tmp_path: Path
) -> None:
    assert prepare() == 0
    first = windows(tmp_path)
    assert [(row.clip, row.first_frame, row.status) for row in first] == [
        ("good.mkv", 0, "ok"), ("good.mkv", 10, "ok"), ("open.mkv", 0, "ok"), ("open.mkv", 10, "rejected")
    ]  # fmt: skip
    assert prepare() == 0
    assert windows(tmp_path) == first
    (clips / "signals" / "good" / "mask.mkv").touch()
    assert prepare() == 0
    again = windows(tmp_path)
    assert len(again) == 6
    assert [json.loads(row.verdict)["verdict"] for row in again if row.clip == "good.mkv"] == ["accept"] * 4


def test_a_released_window_passes_and_says_so(
    prepare: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(*DOUBT) == 1
    assert "3 windows left out as doubtful; --review puts them aside" in capsys.readouterr().out
    assert prepare(*DOUBT, "--review") == 1  # though the ledger knows all about them
    assert "3 windows to be looked at: see the pictures in" in capsys.readouterr().out
    listed = review_list(tmp_path)
    assert [(row["release"], row["clip"], row["first_frame"]) for row in listed] == [
        ("no", "good.mkv", "0"), ("no", "good.mkv", "10"), ("no", "open.mkv", "0")
    ]  # fmt: skip
    folder = tmp_path / "dataset" / ".work" / "quarantine"
    assert sorted(path.name for path in folder.glob("*.png")) == sorted(row["picture"] for row in listed)
    answer(tmp_path, "Yes", clip="good")
    assert prepare(*DOUBT, "--review") == 0
    said = capsys.readouterr().out
    assert "2 samples encoded, 0 kept" in said
    assert "1 window to be looked at" in said
    found = samples(tmp_path)
    assert [sample.key for sample in found] == sorted(row["key"] for row in listed if row["clip"] == "good.mkv")
    for sample in found:
        assert (sample.info["guard"]["verdict"], sample.info["guard"]["released"]) == ("review", True)
    assert [row["release"] for row in review_list(tmp_path)] == ["Yes", "Yes", "no"]
    assert prepare(*DOUBT) == 0
    assert "0 samples encoded, 2 kept" in capsys.readouterr().out


def test_a_release_can_be_taken_back(prepare: Run, clips: Path, tmp_path: Path) -> None:
    assert prepare(*DOUBT, "--review") == 1
    answer(tmp_path, "yes")
    assert prepare(*DOUBT, "--review") == 0
    assert len(samples(tmp_path)) == 3
    answer(tmp_path, "no", clip="open")
    assert prepare(*DOUBT, "--review") == 0
    assert len(samples(tmp_path)) == 2
    assert [row["release"] for row in review_list(tmp_path)] == ["yes", "yes", "no"]


def test_other_masks_void_a_release(prepare: Run, clips: Path, tmp_path: Path) -> None:
    assert prepare(*DOUBT, "--review") == 1
    answer(tmp_path, "yes")
    assert prepare(*DOUBT, "--review") == 0
    people = draw_people(seed=1)
    people.mask[:, 0, 0] = 255  # a dot far from anybody
    (clips / "signals" / "good").rename(clips / "signals" / "before")
    write_people(clips, "good", people)
    assert prepare(*DOUBT, "--review") == 0
    assert len(samples(tmp_path)) == 1
    assert [row["release"] for row in review_list(tmp_path)] == ["no", "no", "yes"]


def test_what_is_settled_under_other_settings_leaves_the_list(prepare: Run, clips: Path, tmp_path: Path) -> None:
    assert prepare() == 0
    assert prepare(*DOUBT, "--review") == 1
    assert len(review_list(tmp_path)) == 3
    assert prepare("--review") == 0  # answered by the ledger
    assert review_list(tmp_path) == []
    assert prepare(*DOUBT, "--review") == 1
    assert len(review_list(tmp_path)) == 3


@pytest.mark.parametrize("spoiled", ["maybe", None])
def test_a_list_that_cannot_be_understood_is_told_before_the_work(
    prepare: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoiled: str | None
) -> None:
    assert prepare(*DOUBT, "--review") == 1
    path = tmp_path / "dataset" / ".work" / "quarantine" / "review.csv"
    if spoiled:
        answer(tmp_path, spoiled)
    else:
        path.write_text("release,clip\nyes,good.mkv\n")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        prepare(*DOUBT, "--review")
    told = capsys.readouterr()
    assert ("line 2: release must be yes or no, got 'maybe'" if spoiled else "line 2 lacks a column") in told.err
    assert "probe" not in told.out


@pytest.mark.parametrize(("policy", "expected"), [("keep", 4), ("drop", 2), ("negative", 4)])
def test_clips_without_people_go_by_policy(prepare: Run, tmp_path: Path, policy: str, expected: int) -> None:
    write_people(tmp_path / "clips", "good", draw_people(seed=1))
    write_people(tmp_path / "clips", "empty", nobody(draw_people(seed=2)))
    assert prepare("--guard.no_human", policy) == 0
    found = samples(tmp_path)
    assert len(found) == expected
    classes = [sample.info["guard"].get("class") for sample in found]
    assert classes.count("negative") == (2 if policy == "negative" else 0)
    if policy == "negative":
        assert {s.info["guard"]["has_people"] for s in found if s.info["guard"].get("class")} == {False}


def test_text_is_blurred_where_a_reader_finds_it(prepare: Run, tmp_path: Path) -> None:
    people = draw_people(seed=1)
    people.frames[:, 0:5, 2:16] = torch.tensor(SIGN, dtype=torch.uint8)
    write_people(tmp_path / "clips", "sign", people)
    write_people(tmp_path / "clips", "plain", draw_people(seed=2))
    reader = ("--text", "fake_sources.FakeReader")
    assert prepare(*reader) == 0
    assert {(row.clip, row.status) for row in windows(tmp_path)} == {("plain.mkv", "ok"), ("sign.mkv", "review")}
    reports: list[Any] = [json.loads(row.verdict) for row in windows(tmp_path) if row.status == "review"]
    assert all("readable_text" in [f["check"] for f in report["findings"]] for report in reports)
    assert prepare(*reader, "--guard.text", "blur") == 0
    assert len(samples(tmp_path)) == 4
