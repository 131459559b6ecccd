"""The toy's observer: finds people and points, sharp or soft, and takes nothing else for a person."""

import csv
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from regen_train.evaluation import mask_iou, pck
from regen_train.skeleton.topology import SCORE_THRESHOLD
from regen_train.toy.form import TOY_FORM, TOY_PEOPLE
from regen_train.toy.making.observer import ObserverTraining, heatmaps_of, train_observer
from regen_train.toy.making.observer_pictures import HIDDEN, SHOWN, Softening, draw_pictures, gaussian, soften
from regen_train.toy.observer import BODY_POINTS, FORM, WEIGHTS, Observer, ObserverNet, Seen, load_observer, weights_of

FORM5 = replace(TOY_FORM, num_frames=5)
CLIPS = 14
SOFT = Softening(blur=1.5, shrink=2.0, noise=6, wobble=15, colour=0.2)


@cache
def observer() -> Observer:
    return load_observer()


@cache
def people() -> object:
    return draw_pictures(CLIPS, seed=1 << 43, kinds=("people",), form=FORM5)


def measured(frames: torch.Tensor) -> tuple[float, float]:
    """IoU over the pictures together, and share of points found, against the truth of `people`."""
    truth, seen = people(), observer().look(frames)
    found = seen.points(TOY_PEOPLE.max_people)
    return mask_iou(seen.mask, truth.mask), pck(found, truth.points, truth.states == SHOWN).rate


def test_people_and_points_of_drawn_clips_are_found():
    iou, rate = measured(people().frames)
    assert iou > 0.87
    assert rate > 0.83


def test_people_and_points_of_soft_clips_are_found():
    iou, rate = measured(soften(people(), SOFT, seed=9, step=0))
    assert iou > 0.83
    assert rate > 0.8


def test_blur_of_one_and_a_half_pixels_alone_hides_nobody():
    pixels = people().frames.permute(0, 3, 1, 2).float()
    blurred = gaussian(pixels, torch.full((len(pixels),), 1.5)).round().to(torch.uint8).permute(0, 2, 3, 1)
    iou, rate = measured(blurred.contiguous())
    assert iou > 0.83
    assert rate > 0.8


@pytest.mark.parametrize("kind", ["skeletons", "silhouettes", "structall", "signals", "nobody", "noise"])
def test_what_only_looks_like_a_person_is_nobody(kind):
    pictures = draw_pictures(10, seed=1 << 44, kinds=(kind,), form=FORM5)
    empty = ~pictures.mask.flatten(1).any(1)
    seen = observer().look(pictures.frames[empty])
    assert len(seen.mask) >= 15
    assert seen.mask.float().mean() < 0.005
    assert seen.points(1)[..., 0].isfinite().float().mean() < 0.1


def test_flat_colours_are_nobody():
    flat = torch.stack([torch.full((80, 80, 3), value, dtype=torch.uint8) for value in (0, 128, 255)])
    assert not observer().look(flat).mask.any()


def test_clips_of_any_size_and_length_are_looked_at_frame_by_frame():
    frames = people().frames
    seen = observer().look(frames)
    assert seen.mask.shape == frames.shape[:3]
    assert seen.heatmaps.shape == (len(frames), len(BODY_POINTS), 40, 40)
    assert len(frames) > 64
    alone = observer().look(frames[66:68])
    assert torch.equal(alone.mask, seen.mask[66:68])
    assert torch.allclose(alone.heatmaps, seen.heatmaps[66:68], atol=1e-5)
    full = people().mask.flatten(1).sum(1).argsort(descending=True)[:2]
    odd = observer().look(frames[full, :77, :70].contiguous())
    assert odd.mask.shape == (2, 77, 70)
    assert odd.heatmaps.shape == (2, len(BODY_POINTS), 39, 35)
    assert mask_iou(odd.mask, seen.mask[full, :77, :70]) > 0.9
    for wrong in (frames.float(), frames[0], frames[..., :2], frames[:0]):
        with pytest.raises(ValueError, match=r"frames must be uint8 \[t, h, w, 3\]"):
            observer().look(wrong)


def test_points_are_the_highest_peaks_between_cells():
    truth = replace(people().pick(torch.tensor([0])), states=torch.full((1, 2, 13), SHOWN))
    places = torch.stack([torch.linspace(10.1, 30.3, 13), torch.linspace(9.2, 71.4, 13)], dim=-1)
    truth = replace(truth, points=torch.stack([places, 79 - places])[None])
    seen = Seen(truth.mask, heatmaps_of(truth, SHOWN))
    # Half a pixel of their 62.
    assert pck(seen.points(2), truth.points, truth.states == SHOWN, alpha=0.5 / 62).rate == 1.0
    assert seen.points(3)[:, 2].isnan().all()
    assert seen.points(1).shape == (1, 1, 13, 2)
    assert seen.points(2, least=1.1).isnan().all()
    with pytest.raises(ValueError, match="people must be at least 1"):
        seen.points(0)


def test_the_shipped_weights_are_small():
    assert WEIGHTS.stat().st_size < 600_000
    assert sum(weight.numel() for weight in ObserverNet().parameters()) < 250_000
    assert {tensor.dtype for tensor in load_file(WEIGHTS).values()} == {torch.float16}
    assert WEIGHTS.with_suffix(".csv").is_file()


def test_files_of_another_form_are_refused(tmp_path: Path):
    tensors = load_file(WEIGHTS)
    pickled = tmp_path / "observer.pt"
    torch.save(tensors, pickled)
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        load_observer(pickled)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_observer(tmp_path / "absent.safetensors")
    file = tmp_path / "observer.safetensors"
    file.write_bytes(WEIGHTS.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_observer(file)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="form is None"):
        load_observer(file)
    changed = dict(tensors)
    del changed["points.bias"]
    changed |= {"people.0.bias": torch.zeros(5), "extra": torch.zeros(1)}
    save_file(changed, file, {"form": FORM})
    with pytest.raises(ValueError, match=r"extra is not known; people.0.bias is \[5\], not \[4\]; points.bias is miss"):
        load_observer(file)
    save_file(tensors | {"points.bias": torch.full((13,), math.nan)}, file, {"form": FORM})
    with pytest.raises(ValueError, match="NaN"):
        load_observer(file)


def test_training_writes_weights_that_load_and_a_log_and_again_the_same(tmp_path: Path):
    settings = ObserverTraining(num_clips=20, num_steps=2, batch_size=4, num_held_out=4)
    for name in ("first", "second"):
        train_observer(tmp_path / f"{name}.safetensors", settings)
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert first.keys() == weights_of(ObserverNet()).keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_observer(tmp_path / "first.safetensors").look(people().frames[:1]).mask.shape == (1, 80, 80)
    rows = list(csv.DictReader((tmp_path / "first.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2"]
    assert all(math.isfinite(float(row["held_out_loss"])) for row in rows)


def test_training_pictures_are_true():
    for kind in ("structall", "signals", "nobody", "noise"):
        nobody = draw_pictures(6, seed=5, kinds=(kind,))
        assert not nobody.mask.any()
        assert not (nobody.states == SHOWN).any()
    drawn, skeletons = (draw_pictures(8, seed=5, kinds=(kind,)) for kind in ("people", "skeletons"))
    assert drawn.mask.flatten(1).any(1).float().mean() > 0.9
    assert (skeletons.mask <= drawn.mask).all()
    assert skeletons.mask.sum() < drawn.mask.sum()
    assert (drawn.frames != skeletons.frames).any(-1)[skeletons.mask].sum() == 0
    sure = drawn.states == SHOWN
    inside = drawn.points[sure].round().long().clamp(0, 79)
    picture = torch.nonzero(sure)[:, 0]
    assert drawn.mask[picture, inside[:, 1], inside[:, 0]].float().mean() > 0.97
    assert set(drawn.states.unique().tolist()) <= {0, SHOWN, HIDDEN}
    assert SCORE_THRESHOLD > 0.2


def test_softening_follows_its_seed_and_keeps_everything_where_all_is_zero():
    pictures = draw_pictures(4, seed=5)
    first, again, other = (soften(pictures, Softening(), seed=0, step=step) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    nothing = Softening(blur=0, shrink=1, noise=0, wobble=0, colour=0, other_room=0, jpeg=0)
    assert (soften(pictures, nothing, seed=0, step=0).int() - pictures.frames.int()).abs().max() <= 1
