"""The size at which a clip is painted, and the way back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.anonymize.options import WindowOptions
from regen_train.anonymize.origin import Origin
from regen_train.anonymize.size import Border, border_of, nearest_size, restore_size
from regen_train.schema import Bucket, Geometry
from regen_train.video import plan_crop, resize_frames

WAN = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=4096)
TOY = Geometry(latent_channels=48, spatial_factor=8, temporal_factor=4, patch_size=(1, 1, 1), text_dim=32)
AREA = 480 * 832


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ((480, 832), (480, 832)),
        ((720, 1280), (480, 848)),
        ((1080, 1920), (480, 848)),
        ((1280, 720), (848, 480)),
        ((480, 640), (528, 704)),
        ((1000, 1000), (640, 640)),
    ],
)
def test_usual_clips_are_hardly_cropped(source, wanted):
    height, width = nearest_size(source, AREA, WAN)
    assert (height, width) == wanted
    stretch = width / height / (source[1] / source[0])
    assert min(stretch, 1 / stretch) > 0.98


def test_the_toy_paints_its_own_clips_uncropped():
    assert nearest_size((80, 80), 80 * 80, TOY) == (80, 80)
    assert nearest_size((480, 480), 80 * 80, TOY) == (80, 80)


@settings(deadline=None)
@given(height=st.integers(16, 4000), width=st.integers(16, 4000))
def test_any_clip_gets_a_size_that_the_model_takes(height, width):
    size = nearest_size((height, width), AREA, WAN)
    WAN.check(Bucket(49, *size))
    if 0.1 < width / height < 10:
        assert 0.7 <= math.prod(size) / AREA <= 1.12
        stretch = size[1] / size[0] / (width / height)
        assert min(stretch, 1 / stretch) > 0.95


@settings(deadline=None)
@given(source=st.tuples(st.integers(8, 90), st.integers(8, 90)), target=st.sampled_from([(16, 16), (32, 48), (64, 32)]))
def test_the_way_back_fills_the_frame_and_keeps_places(source, target):
    crop = plan_crop(*source, *target)
    painted = torch.zeros(2, *target, 3, dtype=torch.uint8)
    painted[:, :, target[1] // 2 :] = 200
    whole = restore_size(painted, crop)
    assert whole.shape == (2, *source, 3)
    border = border_of(crop)
    edge = (crop.offset[1] + target[1] / 2) * source[1] / crop.resized[1]
    column = whole[0, source[0] // 2, :, 0].float()
    middle = float((column < 100).sum())
    assert abs(middle - edge) <= 1
    assert whole[:, :, 0].max() < 60 or border.right + border.left >= source[1] - 4
    assert bool(border) == (crop.resized != crop.target)


def test_what_the_crop_left_out_repeats_the_painted_edge():
    crop = plan_crop(100, 200, 100, 160)
    assert border_of(crop) == Border(top=0, bottom=0, left=20, right=20)
    painted = torch.arange(160, dtype=torch.uint8)[None, None, :, None].expand(1, 100, 160, 3).contiguous()
    whole = restore_size(painted, crop)
    assert (whole[..., :20, :] == 0).all()
    assert (whole[..., 180:, :] == 159).all()
    assert torch.equal(whole[:, :, 20:180], painted)
    assert torch.equal(resize_frames(whole, crop), painted)


def test_nothing_is_left_out_of_a_clip_in_the_models_proportions():
    assert not border_of(plan_crop(160, 160, 80, 80))
    assert border_of(plan_crop(720, 1280, 480, 832)) == Border(0, 0, 16, 17)


@pytest.mark.parametrize(
    ("trained", "source", "used"),
    [(1, (720, 1280), None), (20, (720, 1280), 20), (1, (80, 80), None), (3, (80, 80), 3)],
)
def test_no_lora_makes_masks_grow_less_than_is_safe_for_the_clip(trained, source, used):
    origin = Origin(Bucket(9, 80, 80), {"fps": 8.0, "dilation": trained}, stated=True)
    made = WindowOptions().settings(origin, "structhuman", source, TOY)
    assert (made.dilation, made.fps, made.num_frames) == (used, 8.0, 9)
    assert WindowOptions(dilation=0).settings(origin, "structhuman", source, TOY).dilation == 0


def test_a_release_that_says_nothing_is_taken_for_the_papers():
    made = WindowOptions().settings(Origin(), "structall", (720, 1280), WAN)
    assert (made.fps, made.num_frames, made.sizes) == (7.5, 49, ((480, 848),))
    assert (made.conditions, made.max_windows_per_clip) == (("structall",), 1)
