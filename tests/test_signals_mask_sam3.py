"""SAM 3: everybody is masked on every frame on which anything in the model has seen them.

The model is a random one of the real class. Where a test needs to know what it sees, its detector is made to see bright
areas, and its tracker to be sure of everybody or of nobody.
"""

import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_masks import build_tiny_sam3

from regen_train.signals import Sam3Masks
from regen_train.video import write_video

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 9
LEFT, RIGHT = (slice(12, 36), slice(8, 24)), (slice(12, 36), slice(40, 56))
BRIGHT, DIM = 255, 160


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sam3(tmp_path_factory.mktemp("masks"))


def write_clip(folder: Path, people: dict[int, list[tuple[Any, int]]], num_frames: int = NUM_FRAMES) -> Path:
    """Write a black clip with an area of some brightness for each person on a frame."""
    frames = torch.zeros(num_frames, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    for frame, areas in people.items():
        for area, brightness in areas:
            frames[frame][area] = brightness
    write_video(folder / "clip.mkv", frames, 10, codec="ffv1")
    return folder / "clip.mkv"


def set_up(model: Path, *, tracker_is_sure: bool, **settings: Any) -> Sam3Masks:
    """Load a SAM 3 whose detector sees bright areas with score 0.95, dim ones with 0.35.

    Of two prompts the first sees only what is left, the second only what is right.
    """
    source = Sam3Masks(str(model), **{"dtype": "fp32", "prompts": ("person",), **settings})
    source.setup("cpu")
    loaded, pictures, turns = source._model, [], itertools.cycle(range(len(source.prompts)))
    loaded.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(100 if tracker_is_sure else -100)

    def look(module, args):
        # the processor makes black -1, dim a little above 0, bright 1
        pictures[:] = [args[0].float().mean(1, keepdim=True)]

    def see(module, args, output):
        masks = output.pred_masks
        picture = torch.nn.functional.interpolate(pictures[0], masks.shape[-2:], mode="area")[0, 0]
        left = torch.arange(picture.shape[1]) < picture.shape[1] / 2
        seen = [(picture > 0.9) & left, (picture > 0.9) & ~left, (picture > 0) & (picture <= 0.9)]
        masks[0] = torch.where(torch.stack(seen), 8.0, -8.0)
        scores = torch.tensor([3.0, 3.0, -0.6]).where(torch.stack([mask.any() for mask in seen]), -20.0)
        if len(source.prompts) > 1:
            scores[1 - next(turns)] = -20
        output.pred_logits[0] = scores
        output.presence_logits.fill_(20)

    loaded.detector_model.vision_encoder.register_forward_pre_hook(look)
    loaded.detector_model.register_forward_hook(see, prepend=True)
    return source


def run(source: Sam3Masks, clip: Path) -> torch.Tensor:
    return torch.cat(list(source.masks(clip)))


def grown(area: tuple[slice, slice], by: int) -> tuple[slice, slice]:
    rows, columns = area
    return slice(rows.start - by, rows.stop + by), slice(columns.start - by, columns.stop + by)


def assert_masks_just(mask: torch.Tensor, areas: list[tuple[slice, slice]]) -> None:
    """The areas are masked but for their corners, which small masks round off, and nothing a cell away from them."""
    allowed = torch.zeros_like(mask, dtype=torch.bool)
    for area in areas:
        assert (mask[grown(area, -1)] > 0).all()
        allowed[grown(area, 4)] = True
    assert not (mask[~allowed] > 0).any()


def test_a_random_model_runs_in_windows_and_gives_the_same_bytes_again(model, tmp_path):
    clip = write_clip(tmp_path, {})
    source = Sam3Masks(str(model), prompts=("person",), score_threshold=0.1, track_threshold=0.2, window=8)
    source.setup("cpu")
    parts = list(source.masks(clip))
    assert [len(part) for part in parts] == [4, 1, 4]
    assert parts[0].dtype == torch.uint8
    assert parts[0].shape[1:] == (HEIGHT, WIDTH)
    assert (torch.cat(parts) > 0).any()
    again = list(source.masks(clip, max_frames=8))
    assert sum(len(part) for part in again) == 8
    assert torch.equal(again[0], parts[0])


@pytest.mark.parametrize("window", [6, 32])
def test_whoever_enters_late_is_masked_from_their_first_frame_though_the_tracker_loses_everybody(
    model, tmp_path, window
):
    people = {frame: [(LEFT, BRIGHT)] for frame in range(NUM_FRAMES)}
    for frame in range(5, NUM_FRAMES):
        people[frame] = [(LEFT, BRIGHT), (RIGHT, BRIGHT)]
    masks = run(set_up(model, tracker_is_sure=False, window=window), write_clip(tmp_path, people))
    for frame, areas in people.items():
        assert_masks_just(masks[frame], [area for area, _ in areas])


def test_what_is_too_unsure_to_be_followed_is_masked_on_its_frame(model, tmp_path):
    clip = write_clip(tmp_path, {2: [(RIGHT, DIM)], 3: [(LEFT, BRIGHT), (RIGHT, DIM)]})
    masks = run(set_up(model, tracker_is_sure=False), clip)
    assert_masks_just(masks[2], [RIGHT])
    assert_masks_just(masks[3], [LEFT, RIGHT])
    assert [int(masks[place]) for place in [(2, 24, 48), (3, 24, 48), (3, 24, 16)]] == [255, 255, 1]
    assert not masks[[0, 1, 4, 5, 6, 7, 8]].any()
    assert not run(set_up(model, tracker_is_sure=False, score_threshold=0.4), clip)[2].any()
    followed = run(set_up(model, tracker_is_sure=False, track_threshold=0.3), clip)
    assert not followed.eq(255).any()
    assert torch.equal(followed > 0, masks > 0)


def test_somebody_is_followed_though_the_detector_never_sees_them_again(model, tmp_path):
    # SAM 3 itself takes them for a mistake and removes them after 8 frames
    clip = write_clip(tmp_path, {0: [(LEFT, BRIGHT)]}, num_frames=12)
    masks = run(set_up(model, tracker_is_sure=True), clip)
    assert (masks.flatten(1) > 0).any(1).all()


def test_backwards_whoever_was_found_late_is_masked_before(model, tmp_path):
    clip = write_clip(tmp_path, {6: [(LEFT, BRIGHT)]})
    forwards = run(set_up(model, tracker_is_sure=True), clip)
    both = run(set_up(model, tracker_is_sure=True, reverse=True), clip)
    assert not forwards[:6].any()
    assert (both.flatten(1) > 0).any(1).all()
    assert (both > 0)[forwards > 0].all()


def test_everything_that_any_prompt_finds_is_masked(model, tmp_path):
    source = set_up(model, tracker_is_sure=False, prompts=("person", "human"))
    masks = run(source, write_clip(tmp_path, {0: [(LEFT, BRIGHT), (RIGHT, BRIGHT)]}, num_frames=2))
    assert_masks_just(masks[0], [LEFT, RIGHT])
    assert masks.unique().tolist() == [0, 1, 2]


def test_identity_tells_weights_and_settings(model, tmp_path):
    first = Sam3Masks(str(model)).identity()
    assert json.loads(json.dumps(first)) == first
    assert first["weights"] == model.name
    changed = {
        "prompts": ("person",), "score_threshold": 0.3, "track_threshold": 0.6, "mask_threshold": 0.4,
        "max_hole": 0.0, "reverse": True, "window": 16, "dtype": "fp32",
    }  # fmt: skip
    others = [Sam3Masks(str(model), **{name: value}).identity() for name, value in changed.items()]
    assert all(other != first for other in others)
    copy = tmp_path / model.name
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert Sam3Masks(str(copy)).identity() == first
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert Sam3Masks(str(copy)).identity()["revision"] != first["revision"]


def test_it_travels_to_a_worker(model):
    source = Sam3Masks(str(model), prompts=("person", "child"))
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 our own bytes


def test_settings_that_find_nobody_are_refused(model):
    with pytest.raises(ValueError, match="prompts must name what to look for"):
        Sam3Masks(str(model), prompts=()).setup("cpu")
