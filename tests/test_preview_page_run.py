"""From a run to a page: what its pictures show, what they must not, and what stays from page to page."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_people import People, draw_people, write_people
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from regen_train.guard import GuardSettings
from regen_train.preparation.compose import compose_clip
from regen_train.preparation.preview import (
    ClipOutcome,
    Drawing,
    PageItem,
    Reason,
    Run,
    WindowOutcome,
    draw_strips,
    items_of_run,
)
from regen_train.preparation.preview.items import VerdictName
from regen_train.preparation.probe import Probed, ProbeSettings, ProbeStage, probe_key
from regen_train.preparation.record import RunClip, RunRecord, signals_stamp
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan, survey_clip
from regen_train.shards import fingerprint_of

SETTINGS = DatasetSettings(num_frames=9, sizes=((32, 48),), dilation=2)
PROBE = ProbeSettings(scene_cuts=False)
Judge = Callable[[int], tuple[VerdictName, tuple[Reason, ...]]]


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


def accepted(number: int) -> tuple[VerdictName, tuple[Reason, ...]]:
    return "accept", ()


def plan_of(clip: Path, settings: DatasetSettings = SETTINGS) -> ClipPlan:
    return survey_clip(clip, clip.parent / "signals" / clip.stem, settings, temporal_factor=4)


def make_run(clips: Path, judge: Judge = accepted, settings: DatasetSettings = SETTINGS) -> Run:
    """Return what a run over all clips would have left; those that are not fit are refused."""
    outcomes, conditions = [], ("structhuman", "structall")
    for clip in sorted(path for path in clips.iterdir() if path.is_file()):
        recorded = RunClip({"probe": probe_key(clip, PROBE)}, signals_stamp(clips / "signals" / clip.stem))
        probed = ProbeStage(PROBE).process(clip).value
        assert isinstance(probed, Probed)
        try:
            plan = plan_of(clip, settings)
        except ValueError as error:
            outcomes.append(ClipOutcome(clip.name, recorded, refused=Reason("encode_failed", message=str(error))))
            continue
        windows = []
        for number, window in enumerate(plan.windows):
            fingerprint = fingerprint_of(settings.to_dict() | {"signals": plan.signals_sha256, "window": list(window)})
            verdict, reasons = judge(number)
            span = window[0], window[-1]
            windows.append(WindowOutcome(f"{clip.stem[:1]}-{number:04d}", fingerprint, span, verdict, reasons))
        outcomes.append(ClipOutcome(clip.name, recorded, probed, tuple(windows)))
    record = RunRecord(
        settings, GuardSettings(), PROBE, conditions, 4, hides_text=False, signals=clips / "signals", clips={}
    )
    return Run(clips, record, outcomes)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two windows of one clip in magenta, and a clip that is too slow."""
    folder = tmp_path_factory.mktemp("clips-of-jane")
    write_people(folder, "jane-doe", magenta(draw_people(num_frames=36)))
    write_people(folder, "slow", draw_people(), fps=4.0)
    return folder


def test_strips_show_the_chosen_frames_of_every_layer(clips: Path) -> None:
    plan = plan_of(clips / "jane-doe.mkv")
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
    plan = plan_of(clips / "jane-doe.mkv")
    clip = next(compose_clip(plan, SETTINGS, ("structall", "depth", "structhuman", "edges")))
    strips = draw_strips(clip, [0, 8], height=32, source=False)
    assert list(strips) == ["mask", "pose", "depth", "structall"]
    assert torch.equal(strips["mask"][:, 48:], clip.mask[8][..., None].byte().expand(-1, -1, 3) * 255)


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
    def judge(number: int) -> tuple[VerdictName, tuple[Reason, ...]]:
        return accepted(number) if number == 0 else ("reject", (Reason("mask_missing", "reject", (25,)),))

    first, second, slow = items_of_run(make_run(clips, judge), tmp_path / "page", Drawing(num_frames=3))
    assert (slow.name, slow.verdict, slow.strips) == ("slow.mkv", "failed", {})
    assert "too slow" in slow.reasons[0].message
    assert (first.name, first.verdict, first.span) == ("jane-doe.mkv", "accept", (0, 16))
    assert first.frames == (0, 8, 16)
    assert first.ends == (2, 10, 17)
    assert (second.verdict, second.frames, second.flags) == ("reject", (18, 24, 34), {1: "mask_missing"})
    assert (first.key, second.key, slow.key) == ("j-0000", "j-0001", "clip-0001")
    assert first.frame_size == (32, 48)
    assert first.caption == "A person walks along a wall."
    pictures = decoded(tmp_path / "page", first)
    assert list(pictures) == ["source", "mask", "pose", "depth", "structhuman", "structall"]
    assert all(picture.shape == (32, 3 * 48, 3) for picture in pictures.values())


def test_frames_are_drawn_as_the_whole_window_has_them(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though only those that are shown are composed; depth alone has another gray scale."""
    drawn: dict[str, dict[str, Tensor]] = {}
    monkeypatch.setattr(
        "regen_train.preparation.preview.shots.write_strips", lambda folder, strips: drawn.update({folder.name: strips})
    )
    list(items_of_run(make_run(clips), tmp_path / "page", Drawing(num_frames=3)))
    windows = compose_clip(plan_of(clips / "jane-doe.mkv"), SETTINGS, ("structall", "depth", "structhuman"))
    for strips, whole in zip(drawn.values(), windows, strict=True):
        expected = draw_strips(whole, [0, 4, 8], height=240, source=True)
        assert list(strips) == list(expected)
        for name in ("source", "mask", "pose", "structhuman"):
            assert torch.equal(strips[name], expected[name]), name
        for name in ("depth", "structall"):
            assert (strips[name].float() - expected[name].float()).abs().max() < 8, name


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
    refilled = make_run(clips, settings=replace(SETTINGS, fill="background_mean"))
    hidden = replace(run, record=replace(run.record, hides_text=True))
    assert not set(drawn(drawing, refilled)) & set(first)
    assert not set(drawn(drawing, hidden)) & set(first)


def test_where_the_run_hid_text_the_source_is_said_to_show_it_and_structhuman_is_left_out(
    clips: Path, tmp_path: Path
) -> None:
    run = make_run(clips)
    hidden = replace(run, record=replace(run.record, hides_text=True))
    item = next(items_of_run(hidden, tmp_path / "page", Drawing()))
    assert list(item.strips) == ["source", "mask", "pose", "depth", "structall"]
    assert any("text can be read" in note for note in item.notes)
    item = next(items_of_run(hidden, tmp_path / "bare", Drawing(source=False)))
    assert list(item.strips) == ["mask", "pose", "depth", "structall"]
    assert item.notes == ()


def test_stand_in_depth_is_named(tmp_path: Path) -> None:
    write_people(tmp_path / "clips", "clip", draw_people(), depth=False)
    run = make_run(tmp_path / "clips", settings=replace(SETTINGS, standin_depth="vertical_gradient"))
    (item,) = items_of_run(run, tmp_path / "page", Drawing())
    assert "depth" in item.strips
    assert item.notes == ("stand-in depth",)


def undrawn_because(run: Run, page: Path) -> str:
    (item,) = items_of_run(run, page, Drawing())
    assert (item.strips, item.verdict, item.reasons[-1].check) == ({}, "accept", "undrawn")
    return item.reasons[-1].message


def test_windows_of_clips_and_signals_that_are_not_the_runs_own_are_listed_and_not_drawn(tmp_path: Path) -> None:
    clips, page = tmp_path / "clips", tmp_path / "page"
    clip = write_people(clips, "clip", draw_people())
    run = make_run(clips)
    caption = clips / "signals" / "clip" / "caption.txt"
    caption.write_text("A person stands.")
    assert "its signals in" in undrawn_because(run, page)
    run = make_run(clips)
    recut = replace(run, record=replace(run.record, settings=replace(SETTINGS, fps=15.0)))
    assert "it is cut otherwise" in undrawn_because(recut, page)
    os.utime(clip, ns=(1, 1))
    (item,) = items_of_run(run, page, Drawing())
    assert item.strips  # the same bytes, as after a copy
    clip.write_bytes(clip.read_bytes() + b" ")
    assert "the clip has changed" in undrawn_because(run, page)
    clip.unlink()
    assert "is gone" in undrawn_because(run, page)
    assert list(page.rglob("*.webp")) == []


def test_a_clip_that_cannot_be_decoded_any_more_is_listed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_people(tmp_path / "clips", "clip", draw_people())
    run = make_run(tmp_path / "clips")

    def broken(*_: object) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr("regen_train.preparation.compose.decode_frames", broken)
    assert "it cannot be read: input/output error" in undrawn_because(run, tmp_path / "page")
