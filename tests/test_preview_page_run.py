"""From clips to a page: what its pictures show, what they must not, and what stays from run to run."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_people import People, draw_people, write_people
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from data_prep import preview
from regen_train.guard import GuardSettings
from regen_train.preparation.compose import compose_clip
from regen_train.preparation.preview import (
    Drawing,
    Outcome,
    PageItem,
    Reason,
    Run,
    draw_strips,
    items_of_run,
    survey_run,
)
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan, survey_clips

SETTINGS = DatasetSettings(num_frames=9, sizes=((32, 48),), dilation=2)
SALT = b"0" * 32
SMALL = ("--num_frames", "9", "--sizes", "[[32,48]]", "--dilation", "2")


def magenta(people: People) -> People:
    """Return the same people in a world of magenta noise."""
    noise = torch.randint(200, 256, people.frames.shape, generator=torch.Generator().manual_seed(0)).byte()
    noise[..., 1] //= 16
    return replace(people, frames=noise)


def decoded(page: Path, item: PageItem) -> dict[str, Tensor]:
    pictures = {}
    for name, file in item.strips.items():
        with Image.open(page / file) as picture:
            assert not picture.getexif()
            assert set(picture.info) <= {"loop", "background"}
            pictures[name] = pil_to_tensor(picture.convert("RGB")).permute(1, 2, 0)
    return pictures


def accepted(plan: ClipPlan, number: int) -> Outcome:
    return Outcome("accept")


def make_run(clips: Path, outcome: Callable[[ClipPlan, int], Outcome] = accepted) -> Run:
    found = sorted(path for path in clips.iterdir() if path.is_file())
    survey = survey_clips(found, clips / "signals", SETTINGS, temporal_factor=4)
    return Run(clips, survey, SETTINGS, GuardSettings(), outcome, SALT)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two windows of one clip in magenta, and a clip that is too slow."""
    folder = tmp_path_factory.mktemp("clips-of-jane")
    write_people(folder, "jane-doe", magenta(draw_people(num_frames=36)))
    write_people(folder, "slow", draw_people(), fps=4.0)
    return folder


def test_strips_show_the_chosen_frames_of_every_layer(clips: Path) -> None:
    plan = make_run(clips).survey.plans[0]
    clip = next(compose_clip(plan, SETTINGS, ("structall", "depth", "structhuman")))
    strips = draw_strips(clip, [0, 4, 8], height=32, source=True)
    assert list(strips) == ["source", "mask", "pose", "depth", "structhuman", "structall"]
    for name, video in {"source": clip.frames, "pose": clip.pose, **clip.conditions}.items():
        assert torch.equal(strips[name][:, 48:96], video[4])
    tinted = (strips["mask"][:, 48:96] != clip.frames[4]).any(-1)
    assert torch.equal(tinted, clip.mask[4])
    half = draw_strips(clip, [0, 8], height=16, source=True)
    assert {tuple(strip.shape) for strip in half.values()} == {(16, 48, 3)}


def test_strips_without_source_show_no_source(clips: Path) -> None:
    plan = make_run(clips).survey.plans[0]
    clip = next(compose_clip(plan, SETTINGS, ("structall", "depth", "structhuman", "edges")))
    strips = draw_strips(clip, [0, 8], height=32, source=False)
    assert list(strips) == ["mask", "pose", "depth", "structall"]
    assert torch.equal(strips["mask"][:, 48:], clip.mask[8][..., None].byte().expand(-1, -1, 3) * 255)


def test_no_source_leaves_no_source_pixel_and_no_name_even_where_an_older_page_had_them(
    clips: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    arguments = ["--clips", str(clips), "--output", str(tmp_path / "out"), "--page", str(page), *SMALL]
    arguments += ["--salt_file", str(tmp_path / "salt")]
    assert preview.main(arguments) == 0
    text = (page / "index.html").read_text()
    assert "jane-doe.mkv" in text
    assert any("structhuman" in path.name for path in page.rglob("*"))
    assert preview.main([*arguments, "--no-source"]) == 0
    names = {path.name for path in page.rglob("*") if path.is_file()}
    assert names == {"index.html", "mask.webp", "pose.webp", "depth.webp", "structall.webp"}
    text = (page / "index.html").read_text()
    for secret in ("jane", "doe", "slow", str(tmp_path), "A person walks", "fps"):
        assert secret not in text, secret
    assert "unfit" in text


def test_no_source_pixel_has_a_part_in_pictures_without_source(tmp_path: Path) -> None:
    """Other pixels everywhere, in people and background alike, give the same files, byte by byte."""
    pages = {}
    for name, people in (("plain", draw_people()), ("magenta", magenta(draw_people()))):
        write_people(tmp_path / name, "clip", people)
        for source in (True, False):
            page = tmp_path / f"{name}-{source}"
            items = list(items_of_run(make_run(tmp_path / name), page, Drawing(source=source)))
            pages[name, source] = [
                {strip: (page / file).read_bytes() for strip, file in item.strips.items()} for item in items
            ]
    assert pages["plain", False] == pages["magenta", False]
    assert len(pages["plain", False]) == 1
    ours, theirs = pages["plain", True][0], pages["magenta", True][0]
    assert {strip for strip in ours if ours[strip] != theirs[strip]} == {"source", "mask", "structhuman"}


def test_a_run_lists_refused_clips_and_every_window(clips: Path, tmp_path: Path) -> None:
    def outcome(plan: ClipPlan, number: int) -> Outcome:
        if number == 0:
            return Outcome("accept")
        return Outcome("reject", (Reason("mask_missing", "reject", (plan.windows[1][3] + 1,)),))

    slow, first, second = items_of_run(make_run(clips, outcome), tmp_path / "page", Drawing(num_frames=3))
    assert (slow.name, slow.verdict, slow.strips) == ("slow.mkv", "reject", {})
    assert "too slow" in slow.reasons[0].message
    assert (first.name, first.verdict, first.span) == ("jane-doe.mkv", "accept", (0, 16))
    assert first.frames == (0, 8, 16)
    assert first.ends == (2, 10, 17)
    assert (second.verdict, second.frames, second.flags) == ("reject", (18, 24, 34), {1: "mask_missing"})
    assert first.key.endswith("-0000")
    assert first.key[:24] == second.key[:24] != slow.key
    assert first.frame_size == (32, 48)
    pictures = decoded(tmp_path / "page", first)
    assert list(pictures) == ["source", "mask", "pose", "depth", "structhuman", "structall"]
    assert all(picture.shape == (32, 3 * 48, 3) for picture in pictures.values())


def test_pictures_are_kept_until_something_they_show_changes(clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"

    def drawn(drawing: Drawing, run: Run) -> dict[str, int]:
        list(items_of_run(run, page, drawing))
        return {str(path): path.stat().st_mtime_ns for path in page.rglob("mask.webp")}

    run, drawing = make_run(clips), Drawing(num_frames=3)
    first = drawn(drawing, run)
    assert drawn(drawing, run) == first
    for other in (replace(drawing, num_frames=4), replace(drawing, height=16), replace(drawing, source=False)):
        assert not set(drawn(other, run)) & set(first)
    refilled = replace(run, settings=replace(SETTINGS, fill="background_mean"))
    unmended = replace(run, guard=GuardSettings(repair_frames=0))
    assert not set(drawn(drawing, refilled)) & set(first)
    assert not set(drawn(drawing, unmended)) & set(first)


def test_a_window_that_cannot_be_drawn_is_listed_all_the_same(tmp_path: Path) -> None:
    clip = write_people(tmp_path / "clips", "gone", draw_people())
    run = make_run(tmp_path / "clips")
    clip.unlink()
    (item,) = items_of_run(run, tmp_path / "page", Drawing())
    assert item.strips == {}
    assert item.reasons[-1].check == "undrawn"
    assert item.reasons[-1].message


def test_a_folder_with_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="2"):
        preview.main(["--clips", str(tmp_path), "--output", str(tmp_path / "out"), "--page", str(tmp_path / "page")])
    assert "holds more than a page: thesis.tex" in capsys.readouterr().err


def test_the_page_refers_to_pictures_that_exist(clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    arguments = ["--clips", str(clips), "--output", str(tmp_path / "out"), "--page", str(page), *SMALL]
    assert preview.main([*arguments, "--salt_file", str(tmp_path / "salt")]) == 0
    found = re.search(r'id="data">(.*?)</script>', (page / "index.html").read_text(), flags=re.DOTALL)
    assert found is not None
    files = {file for item in json.loads(found[1]) for file in item["strips"].values()}
    assert len(files) == 12
    assert files == {path.relative_to(page).as_posix() for path in page.rglob("*.webp")}


def test_signals_extracted_by_the_run_come_before_the_users_own(tmp_path: Path) -> None:
    write_people(tmp_path / "clips", "a", draw_people(seed=1))
    write_people(tmp_path / "clips", "b", draw_people(seed=2))
    work = tmp_path / "work" / "signals"
    work.mkdir(parents=True)
    (tmp_path / "clips" / "signals" / "a").rename(work / "a")
    (tmp_path / "clips" / "c.mkv").write_bytes((tmp_path / "clips" / "b.mkv").read_bytes())
    clips, theirs = sorted((tmp_path / "clips").glob("*.mkv")), tmp_path / "clips" / "signals"
    survey = survey_run(clips, [work, theirs], SETTINGS)
    assert [plan.signals for plan in survey.plans] == [work / "a", theirs / "b"]
    assert [verdict.clip for verdict in survey.refused] == ["c.mkv"]
