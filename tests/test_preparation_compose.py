from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_people import People, draw_people, replace_people, write_people

from regen_train.conditions import ComposedClip, default_dilation, pose_support
from regen_train.guard import check_conditions
from regen_train.preparation.compose import compose_clip, standin_depth
from regen_train.preparation.encode import latent_coverage
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import survey_clip
from regen_train.schema import Geometry
from regen_train.skeleton import draw_pose
from regen_train.video import map_keypoints, plan_crop, resize_frames

ALL = ("structhuman", "structall", "background", "depth", "pose", "edges")
GEOMETRY = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=32)
BASE = DatasetSettings(num_frames=5, sizes=((32, 48),), conditions=ALL, dilation=2)


def compose(folder: Path, people: People, settings: DatasetSettings, *, depth: bool = True) -> list[ComposedClip]:
    clip = write_people(folder, "clip", people, depth=depth)
    plan = survey_clip(clip, folder / "signals" / "clip", settings, temporal_factor=4)
    return list(compose_clip(plan, settings, settings.conditions or ()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sizes": ((96, 128),), "skeleton_style": "vace"},
        {"fill": "background_mean", "depth_fill": "depth_mean", "depth_normalization": "frame"},
        {"dilation": None, "skeleton_style": "controlnet"},
    ],
    ids=["default", "enlarged", "release", "default dilation"],
)
def test_no_human_pixel_gets_through(tmp_path: Path, changes: dict) -> None:
    """Promise 1: other people under the same mask give bit-identical conditions."""
    settings = replace(BASE, **changes)
    people = draw_people()
    radius = default_dilation(48, 64) if settings.dilation is None else settings.dilation
    ours = compose(tmp_path / "a", people, settings)
    theirs = compose(tmp_path / "b", replace_people(people, radius=radius), settings)
    assert len(ours) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert not torch.equal(one.frames, other.frames)
        assert torch.equal(one.mask, other.mask)
        assert {name for name in ALL if not torch.equal(one.conditions[name], other.conditions[name])} == set()


def test_a_pixel_that_the_mask_misses_does_get_through(tmp_path: Path) -> None:
    """The counterfactual test can fail: noise one pixel beyond the dilated mask changes StructHuman."""
    people = draw_people()
    ours = compose(tmp_path / "a", people, BASE)
    theirs = compose(tmp_path / "b", replace_people(people, radius=3), BASE)
    assert not torch.equal(ours[0].conditions["structhuman"], theirs[0].conditions["structhuman"])


def test_depth_of_people_does_not_matter(tmp_path: Path) -> None:
    people = draw_people()
    nearer = replace(people, depth=torch.where(people.mask > 0, 60000, people.depth.int()).to(torch.uint16))
    one, other = (compose(tmp_path / name, each, BASE)[0] for name, each in (("a", people), ("b", nearer)))
    for name in ("structall", "depth"):
        assert torch.equal(one.conditions[name], other.conditions[name])


def test_conditions_are_what_they_promise(tmp_path: Path) -> None:
    clip = compose(tmp_path, draw_people(), BASE)[0]
    drawn = pose_support(clip.pose)
    human, everything = clip.conditions["structhuman"], clip.conditions["structall"]
    outside = ~clip.mask & ~drawn
    assert outside.any()
    assert torch.equal(human[outside], clip.frames[outside])
    assert (human[clip.mask & ~drawn] == 128).all()
    assert (everything[clip.mask & ~drawn] == 128).all()
    assert (everything[~drawn] == everything[~drawn][:, :1]).all()
    for video in (human, everything):
        assert torch.equal(video[drawn], clip.pose[drawn])
    assert torch.equal(clip.conditions["pose"], clip.pose)


@pytest.mark.parametrize(
    ("name", "where", "fault"),
    [
        ("structhuman", "mask", "structhuman is not flat under the mask"),
        ("structhuman", "outside", "structhuman is not the clip outside the mask"),
        ("structall", "drawn", "structall is not the skeleton where one is drawn"),
        ("structall", "outside", "structall is coloured where no skeleton is drawn"),
        ("depth", "mask", "depth is not flat under the mask"),
    ],
)
@pytest.mark.parametrize("fill", ["gray", "mean"])
def test_one_wrong_pixel_is_found(tmp_path: Path, name: str, where: str, fault: str, fill: str) -> None:
    settings = BASE if fill == "gray" else replace(BASE, fill="background_mean", depth_fill="depth_mean")
    clip = compose(tmp_path, draw_people(), settings)[0]
    assert check_conditions(clip, fill=settings.fill, depth_fill=settings.depth_fill) == []
    drawn = pose_support(clip.pose)
    area = {"mask": clip.mask & ~drawn, "outside": ~clip.mask & ~drawn, "drawn": drawn}[where]
    pixel = tuple(area.nonzero()[-1])
    clip.conditions[name][pixel] += torch.tensor([1, 0, 0] if where == "outside" else [1, 1, 1], dtype=torch.uint8)
    found = check_conditions(clip, fill=settings.fill, depth_fill=settings.depth_fill)
    assert (fault, 1.0) in [(finding.message, finding.measured["pixels"]) for finding in found]


def test_the_skeleton_is_drawn_last_at_model_size_with_a_scaled_line(tmp_path: Path) -> None:
    people = draw_people()
    settings = replace(BASE, sizes=((96, 144),), line_width=2.0)
    clip = compose(tmp_path, people, settings)[0]
    crop = plan_crop(48, 64, 96, 144)
    assert crop.scale == 2.25
    keypoints = map_keypoints(people.poses.keypoints[0:10:2], crop)
    expected = draw_pose(keypoints, people.poses.scores[0:10:2], 96, 144, "regenhuman", 4.5)
    assert torch.equal(clip.pose, expected)


def test_target_frames_are_the_real_ones_by_time(tmp_path: Path) -> None:
    people = draw_people()
    clips = compose(tmp_path, people, BASE)
    crop = plan_crop(48, 64, 32, 48)
    for number, clip in enumerate(clips):
        assert torch.equal(clip.frames, resize_frames(people.frames[10 * number : 10 * number + 10 : 2], crop))


def test_the_standin_is_a_ramp_that_knows_nothing_of_the_clip(tmp_path: Path) -> None:
    ramp = standin_depth(5, 2)
    assert torch.equal(ramp, torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]]).T.expand(5, 2))
    settings = replace(BASE, standin_depth="vertical_gradient")
    people = draw_people(seed=3)
    one = compose(tmp_path / "a", people, settings, depth=False)[0]
    other = compose(tmp_path / "b", replace(people, frames=people.frames.flip(0)), settings, depth=False)[0]
    assert torch.equal(one.conditions["structall"], other.conditions["structall"])
    free = one.conditions["depth"][0, :, -1, 0]
    assert free[0] == 0
    assert free[-1] >= 254
    assert (free.diff() >= 0).all()


def test_missing_depth_without_a_standin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no depth, and no stand-in"):
        compose(tmp_path, draw_people(), BASE, depth=False)


def test_coverage_is_the_share_of_human_pixels_by_latent_cell() -> None:
    mask = torch.zeros(9, 16, 16, dtype=torch.bool)
    mask[0, :8, 8:] = True  # the first frame alone
    mask[1:3, 8:, :8] = True  # half of the frames of the first group
    mask[8, 0, :8] = True  # 8 of 256 pixels of a cell of the second
    coverage = latent_coverage(mask, GEOMETRY)
    expected = torch.zeros(3, 2, 2, dtype=torch.uint8)
    expected[0, 0, 1], expected[1, 1, 0], expected[2, 0, 0] = 255, 128, 8
    assert torch.equal(coverage, expected)
