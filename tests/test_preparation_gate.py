"""The gate at work on clips in files: windows judged, doubtful ones put aside and released, text hidden."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_people import draw_people, replace_people, write_people
from PIL import Image
from torch import Tensor

from regen_train.guard import Boxes, Detectors, GuardReport, GuardSettings
from regen_train.preparation.compose import ComposedWindow, compose_windows
from regen_train.preparation.gate import Gate
from regen_train.preparation.lettering import Layer, hide_text
from regen_train.preparation.quarantine import LIST_NAME, Quarantine, QuarantinedWindow, review_picture
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan, survey_clip
from regen_train.toy.world import ClipFormat, WorldOptions, draw_clip, render, write_clip

BASE = DatasetSettings(fps=7.5, num_frames=5, sizes=((64, 112),), conditions=("structhuman",), max_windows_per_clip=2)
TRUSTING = GuardSettings(when_absent="accept")


class Reads:
    """A reader that finds the same text in every picture."""

    def __init__(self, box: tuple[float, ...], text: str = "EXIT") -> None:
        self.found = Boxes(torch.tensor([box]), torch.tensor([0.9]), (text,))
        self.saw: list[Tensor] = []

    def setup(self, device: str) -> None:
        self.device = device

    def identity(self) -> dict[str, str]:
        return {"reader": "stub"}

    def detect(self, frames: Tensor) -> list[Boxes]:
        self.saw.append(frames.clone())
        return [self.found] * len(frames)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn clip of two windows, whose masks miss a person from frame 12 on in a second copy."""
    folder = tmp_path_factory.mktemp("world")
    clip = render(draw_clip(3, 0, ClipFormat(num_frames=21, height=96, width=168, fps=15.0), WorldOptions(2, 2)))
    write_clip(folder, "good", clip)
    late = clip.mask.clone()
    late[12:][late[12:] == 2] = 0
    write_clip(folder, "late", replace(clip, mask=late))
    return folder


def plan_of(folder: Path, name: str) -> ClipPlan:
    return survey_clip(folder / f"{name}.mkv", folder / "signals" / name, BASE, temporal_factor=4)


def judge(folder: Path, name: str, settings: GuardSettings = TRUSTING) -> list[tuple[ComposedWindow, GuardReport]]:
    plan, gate = plan_of(folder, name), Gate(settings, Detectors(), BASE)
    evidence = gate.gather(plan)
    windows = list(compose_windows(plan, BASE, ("structhuman",), settings))
    return [(window, gate.inspect(plan, window, evidence)) for window in windows]


def test_windows_are_judged_one_by_one_and_a_good_one_passes(world: Path) -> None:
    assert [report.verdict for _, report in judge(world, "good")] == ["accept", "accept"]
    reports = [report for _, report in judge(world, "late")]
    assert [report.verdict for report in reports] == ["accept", "reject"]
    assert {f.check for f in reports[1].findings if f.severity == "reject"} == {"people_outside_mask"}
    assert all(12 <= frame <= 18 for frame in reports[1].findings[0].frames)


def test_frames_between_those_of_a_window_are_looked_at_too(world: Path) -> None:
    window, report = judge(world, "late")[1]
    assert set(report.findings[0].frames) - set(window.frames)


def test_what_nobody_checked_makes_every_window_doubtful(world: Path) -> None:
    assert [report.verdict for _, report in judge(world, "good", GuardSettings())] == ["review", "review"]


def test_masks_are_mended_before_anything_is_made_of_them(tmp_path: Path) -> None:
    people = draw_people(num_frames=10)
    broken = people.mask.clone()
    broken[4] = 0
    write_people(tmp_path, "clip", replace(people, mask=broken))
    settings = replace(BASE, sizes=((48, 64),), conditions=("structhuman",))
    plan = survey_clip(tmp_path / "clip.mkv", tmp_path / "signals" / "clip", settings, temporal_factor=4)
    window = next(compose_windows(plan, settings, ("structhuman",), TRUSTING))
    assert not window.given[2].any()
    assert (window.signals.mask[2][people.mask[4] > 0] == 255).float().mean() > 0.9
    unmended = next(compose_windows(plan, settings, ("structhuman",), replace(TRUSTING, repair_frames=0)))
    assert not unmended.clip.mask[2].any()


def test_the_identity_of_a_gate_is_all_that_a_verdict_depends_on() -> None:
    gate = Gate(TRUSTING, Detectors(), BASE)
    assert gate.identity() == Gate(TRUSTING, Detectors(), BASE).identity()
    assert gate.identity() != Gate(replace(TRUSTING, box_gap=0.2), Detectors(), BASE).identity()
    assert gate.identity() != Gate(TRUSTING, Detectors(text=Reads((0.0, 0.0, 9.0, 9.0))), BASE).identity()


def put_aside(folder: Path, world: Path, fingerprint: str = "f1") -> Quarantine:
    quarantine = Quarantine(folder)
    window, report = judge(world, "good", GuardSettings())[0]
    waiting = QuarantinedWindow("k-0000", fingerprint, "good.mkv", 0, 8, report.summary())
    quarantine.put(waiting, report, window)
    return quarantine


def release(folder: Path, answer: str = "yes") -> None:
    rows = list(csv.DictReader((folder / LIST_NAME).read_text().splitlines()))
    with (folder / LIST_NAME).open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([row | {"release": answer} for row in rows])


def test_a_person_releases_what_they_have_looked_at(world: Path, tmp_path: Path) -> None:
    quarantine = put_aside(tmp_path / "q", world)
    assert quarantine.write_list() == 1
    assert quarantine.released() == {}
    release(tmp_path / "q")
    assert quarantine.released() == {"k-0000": "f1"}
    assert quarantine.write_list() == 0  # nothing waits any more, and what was entered stays
    assert quarantine.released() == {"k-0000": "f1"}
    with Image.open(tmp_path / "q" / "k-0000.png") as picture:
        assert picture.size[0] > 600


def test_a_release_does_not_count_for_another_finding(world: Path, tmp_path: Path) -> None:
    put_aside(tmp_path / "q", world).write_list()
    release(tmp_path / "q")
    changed = put_aside(tmp_path / "q", world, fingerprint="f2")
    changed.write_list()
    assert changed.released() == {}


def test_a_list_that_cannot_be_understood_is_refused_with_its_lines(world: Path, tmp_path: Path) -> None:
    quarantine = put_aside(tmp_path / "q", world)
    quarantine.write_list()
    release(tmp_path / "q", "maybe")
    with pytest.raises(ValueError, match="line 2: release must be yes or no, got 'maybe'"):
        quarantine.released()


def test_a_window_that_is_not_doubtful_any_more_is_forgotten(world: Path, tmp_path: Path) -> None:
    quarantine = put_aside(tmp_path / "q", world)
    quarantine.remove("k-0000")
    assert quarantine.write_list() == 0


def test_flagged_frames_are_on_the_picture(world: Path) -> None:
    window, _ = judge(world, "good")[0]
    plain, flagged = review_picture(window, set()), review_picture(window, {4})
    assert plain.shape == flagged.shape
    assert (plain != flagged).any()


def test_hidden_text_leaves_no_trace_and_people_no_part_in_it() -> None:
    """Whatever letters stand in the box and whoever stands beside it, the picture outside people is the same."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.randint(0, 256, (1, 48, 64, 3), generator=generator, dtype=torch.uint8)
    people = torch.zeros(1, 48, 64, dtype=torch.bool)
    people[0, 8:48, 30:44] = True

    def hidden(letters: int, person: int) -> Tensor:
        picture = wall.clone()
        picture[0, 10:18, 12:36] = letters
        picture[people] = person
        reader = Reads((12.0, 10.0, 36.0, 18.0))
        layers = list(hide_text([Layer(picture, people)] * 4, reader))
        assert len(layers) == 4
        assert all((seen[people] == 128).all() for seen in reader.saw)
        return layers[1].picture

    first, second = hidden(0, 10), hidden(255, 200)
    assert torch.equal(first[~people], second[~people])
    assert torch.equal(first[0, :6], wall[0, :6])
    assert len(first[0, 10:18, 12:28].reshape(-1, 3).unique(dim=0)) == 1


def test_text_is_hidden_in_target_and_condition_alike(tmp_path: Path) -> None:
    settings, guard = replace(BASE, sizes=((48, 64),)), replace(TRUSTING, text="blur")
    people = draw_people(num_frames=10)
    for name, each in (("a", people), ("b", replace_people(people, radius=1, seed=5))):
        write_people(tmp_path / name, "clip", each)
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        plan = survey_clip(folder / "clip.mkv", folder / "signals" / "clip", settings, temporal_factor=4)
        reader = Reads((2.0, 2.0, 60.0, 10.0))
        made.append(next(compose_windows(plan, settings, ("structhuman",), guard, reader)).clip)
    assert torch.equal(made[0].conditions["structhuman"], made[1].conditions["structhuman"])
    box = made[0].frames[:, 3:9, 4:40]
    assert (box == box[:, :1, :1]).all()
    plan = survey_clip(tmp_path / "a" / "clip.mkv", tmp_path / "a/signals/clip", settings, temporal_factor=4)
    shown = next(compose_windows(plan, settings, ("structhuman",), TRUSTING, reader)).clip
    assert not torch.equal(shown.frames, made[0].frames)
