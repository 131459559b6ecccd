"""The command that writes the page, on what real runs leave behind."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from moving_people import People, draw_people, write_people

from data_prep import preview, run
from regen_train.signals import Poses

SMALL = (
    *("--num_frames", "9", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2"),
    *("--num_workers", "0", "--threads", "1"),
)
ACCEPT = ("--guard.when_absent", "accept")


def stroll(num_frames: int) -> People:
    """Return a person slow enough for the gate to follow at this size."""
    people = draw_people(num_frames=num_frames // 4 + 1)
    kept = torch.arange(num_frames) // 4
    poses = Poses(people.poses.keypoints[kept], people.poses.scores[kept])
    return People(people.frames[kept], people.mask[kept], poses, people.depth[kept])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of two windows, one too slow, one that is no video, and a twin."""
    folder = tmp_path_factory.mktemp("clips-of-jane")
    clip = write_people(folder, "jane-doe", stroll(36))
    write_people(folder, "slow", draw_people(seed=1), fps=4.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "twin.mkv").write_bytes(clip.read_bytes())
    return folder


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    salt = tmp_path_factory.mktemp("secret") / "salt"
    return ["--clips", str(clips), "--pretrained", str(tiny_model), "--salt_file", str(salt), *SMALL]


@pytest.fixture(scope="module")
def prepared(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, not to be changed."""
    output = tmp_path_factory.mktemp("prepared") / "dataset"
    assert run.main([*arguments, "--output", str(output), *ACCEPT]) == 0
    return output


def listed(page: Path) -> list[dict[str, Any]]:
    found = re.search(r'id="data">(.*?)</script>', (page / "index.html").read_text(), flags=re.DOTALL)
    assert found is not None
    items: list[dict[str, Any]] = json.loads(found[1])
    return items


def write(clips: Path, dataset: Path, page: Path, *more: str) -> list[dict[str, Any]]:
    assert preview.main(["--clips", str(clips), "--output", str(dataset), "--page", str(page), *more]) == 0
    return listed(page)


def test_the_page_tells_what_became_of_every_clip_and_window(
    clips: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page"
    broken, first, second, slow, twin = write(clips, prepared, page)
    assert [item["verdict"] for item in (broken, first, second, slow, twin)] == [
        "failed",
        "accept",
        "accept",
        "failed",
        "failed",
    ]
    assert [item["reasons"][0]["check"] for item in (broken, slow, twin)] == [
        "probe_failed",
        "encode_failed",
        "refused",
    ]
    assert "too slow" in slow["reasons"][0]["message"]
    assert twin["reasons"][0]["message"] == "is the same file as jane-doe.mkv"
    assert (first["span"], second["span"]) == ("0-16", "18-34")
    assert first["notes"][0] == "9x32x48"
    assert "unchecked_people" in {reason["check"] for reason in first["reasons"]}
    manifest = json.loads((prepared / ".work" / "manifest.json").read_text())
    assert {first["key"], second["key"]} == set(manifest["samples"])
    assert "2 accept, 3 failed" in capsys.readouterr().out
    files = {file for item in (first, second) for file in item["strips"].values()}
    assert len(files) == 12
    assert files == {path.relative_to(page).as_posix() for path in page.rglob("*.webp")}


def test_no_source_leaves_no_source_pixel_and_no_name_even_where_an_older_page_had_them(
    clips: Path, prepared: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    write(clips, prepared, page)
    assert "jane-doe.mkv" in (page / "index.html").read_text()
    assert any("structhuman" in path.name for path in page.rglob("*"))
    write(clips, prepared, page, "--no-source")
    names = {path.name for path in page.rglob("*") if path.is_file()}
    assert names == {"index.html", "mask.webp", "pose.webp", "depth.webp", "structall.webp"}
    text = (page / "index.html").read_text()
    for secret in ("jane", "doe", "slow.", "twin", "broken", str(tmp_path), "A person walks", "fps"):
        assert secret not in text, secret
    assert "encode_failed" in text


def test_only_the_last_run_is_shown_with_its_own_settings(
    clips: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, page = tmp_path / "dataset", tmp_path / "page"
    more = [*arguments, "--output", str(dataset), *ACCEPT]
    assert run.main(more) == 0
    before = write(clips, dataset, page)
    assert run.main([*more, "--max_windows_per_clip", "1"]) == 0
    _, only, _, _ = after = write(clips, dataset, page)
    assert only.pop("notes") == ["9x32x48", "9 frames left over"]
    assert only == {name: value for name, value in before[1].items() if name != "notes"}  # its sample tells the report
    assert len(after) == 4
    assert len(list(page.rglob("mask.webp"))) == 1
    assert run.main([*more, "--num_frames", "5"]) == 0
    assert [item["span"] for item in write(clips, dataset, page) if item["span"]] == ["0-8", "10-18", "20-28"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "late.mkv").touch()
    capsys.readouterr()
    items = write(tmp_path / "other", dataset, page)
    assert "is gone" in items[1]["reasons"][-1]["message"]
    assert "not on the page: 1 clip that came after the run" in capsys.readouterr().err


def test_what_a_person_released_is_shown_as_such(clips: Path, arguments: list[str], tmp_path: Path) -> None:
    dataset, page = tmp_path / "dataset", tmp_path / "page"
    command = [*arguments, "--output", str(dataset), "--review"]
    assert run.main(command) == 1
    assert [item["verdict"] for item in write(clips, dataset, page)] == [
        "failed",
        "review",
        "review",
        "failed",
        "failed",
    ]
    path = dataset / ".work" / "quarantine" / "review.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows[0]["release"] = "yes"
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    for _ in range(2):  # encoded, then kept
        assert run.main(command) == 0
        _, first, second, _, _ = write(clips, dataset, page)
        assert (first["verdict"], second["verdict"]) == ("released", "review")
        assert first["reasons"][0]["severity"] == "review"


def test_shards_of_a_job_array_make_one_page(
    clips: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, page = tmp_path / "dataset", tmp_path / "page"
    more = [*arguments, "--output", str(dataset), *ACCEPT]
    assert run.main([*more, "--shard", "1/2"]) == 0
    assert len(write(clips, dataset, page)) == 3
    assert "shards not prepared yet: 0" in capsys.readouterr().err
    assert run.main([*more, "--shard", "0/2"]) == 0
    assert len(write(clips, dataset, page)) == 5
    assert run.main([*more, "--shard", "0/2", "--fps", "5"]) == 0
    with pytest.raises(SystemExit, match="2"):
        write(clips, dataset, page)
    assert "shard 1 was prepared with other settings than shard 0" in capsys.readouterr().err


def test_signals_made_by_the_run_are_drawn(arguments: list[str], tmp_path: Path) -> None:
    clips, dataset = tmp_path / "clips", tmp_path / "dataset"
    write_people(clips, "a", stroll(20))
    (clips / "signals").rename(tmp_path / "made")
    command = ["--clips", str(clips), *arguments[2:], "--output", str(dataset), *ACCEPT]
    for flag, name in {"masks": "Mask", "poses": "Pose", "depth": "Depth", "captions": "Caption"}.items():
        command += [f"--{flag}", f"{name}Files", f"--{flag}.root", str(tmp_path / "made")]
    assert run.main(command) == 0
    (item,) = write(clips, dataset, tmp_path / "page")
    assert list(item["strips"]) == ["source", "mask", "pose", "depth", "structhuman", "structall"]


def test_without_a_run_there_is_no_page(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", '{"settings": {}}'):
        (tmp_path / ".work").mkdir(exist_ok=True)
        (tmp_path / ".work" / "run.json").write_text(text)
        with pytest.raises(SystemExit, match="2"):
            write(clips, tmp_path, tmp_path / "page")
    said = capsys.readouterr().err
    assert "run.json is missing or torn; run data_prep.run" in said
    assert "run.json is of another version" in said


def test_a_ledger_that_is_gone_is_said(clips: Path, arguments: list[str], tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    assert run.main([*arguments, "--output", str(dataset), *ACCEPT]) == 0
    (dataset / ".work" / "ledger.sqlite").unlink()
    items = write(clips, dataset, tmp_path / "page")
    assert [item["reasons"][0]["check"] for item in items] == ["refused", "ledger_lost", "refused", "refused"]


def test_a_folder_with_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="2"):
        write(tmp_path, tmp_path / "out", tmp_path / "page")
    assert "holds more than a page: thesis.tex" in capsys.readouterr().err
