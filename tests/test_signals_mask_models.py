"""Grounded SAM 2 and Mask R-CNN on random models of the real classes; what all say when weights cannot be had."""

import dataclasses
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.error import URLError

import huggingface_hub
import numpy as np
import pytest
import torch
import torchvision.models._api
from huggingface_hub import errors
from jsonargparse import ArgumentParser
from safetensors.torch import save_file
from tiny_masks import build_mask_rcnn_state, build_tiny_grounding_dino, build_tiny_sam2

from regen_train.signals import GroundedSam2Masks, MaskRcnnMasks, MaskSource, Sam3Masks
from regen_train.signals.mask import mask_rcnn
from regen_train.signals.mask.models import transformers_classes
from regen_train.video import write_video

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 9
LEFT, RIGHT = [8.0, 12.0, 24.0, 36.0], [40.0, 12.0, 56.0, 36.0]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rcnn") / "people.safetensors"
    save_file(build_mask_rcnn_state(label=1), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame n is as bright as 10 n."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    frames = 10 * torch.arange(NUM_FRAMES, dtype=torch.uint8)[:, None, None, None].expand(-1, HEIGHT, WIDTH, 3)
    write_video(path, frames.contiguous(), 10, codec="ffv1")
    return path


def run(source: MaskSource, clip: Path) -> torch.Tensor:
    return torch.cat(list(source.masks(clip)))


# --- Grounding DINO and SAM 2


class Grounded:
    """A source whose detector finds what a test says, and whose tracker is sure of everybody or of nobody."""

    def __init__(self, models: tuple[Path, Path], boxes: dict[int, list[list[float]]], *, sure: bool, **settings: Any):
        self.looked_at: list[int] = []
        self.boxes = boxes
        detector, tracker = models
        self.source = GroundedSam2Masks(str(detector), str(tracker), dtype="fp32", **settings)
        self.source.setup("cpu")
        self.source._detect = self.detect  # type: ignore[method-assign]
        self.source._tracker.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(100 if sure else -100)

    def detect(self, frame: np.ndarray) -> torch.Tensor:
        number = round(float(frame.mean()) / 10)
        self.looked_at.append(number)
        return torch.tensor(self.boxes.get(number, [])).reshape(-1, 4)


def test_grounded_sam2_runs_in_windows_and_gives_the_same_bytes_again(detector, tracker, clip):
    source = GroundedSam2Masks(str(detector), str(tracker), box_threshold=0.1, window=6)
    source.setup("cpu")
    parts = list(source.masks(clip))
    assert [len(part) for part in parts] == [2, 2, 1, 4]
    assert parts[0].shape[1:] == (HEIGHT, WIDTH)
    assert (torch.cat(parts) > 0).any()
    assert torch.equal(run(source, clip), torch.cat(parts))


def test_boxes_are_detected_every_few_frames_and_on_a_windows_last(detector, tracker, clip):
    grounded = Grounded((detector, tracker), {}, sure=True, window=8, detect_every=3)
    assert not run(grounded.source, clip).any()
    assert grounded.looked_at == [0, 3, 6, 7, 4, 7, 8]


def test_whoever_is_found_late_is_followed_both_ways(detector, tracker, clip):
    masks = run(Grounded((detector, tracker), {4: [LEFT]}, sure=True).source, clip)
    assert (masks.flatten(1) > 0).any(1).all()


def test_people_found_on_different_frames_are_followed_apart(detector, tracker, clip):
    together = run(Grounded((detector, tracker), {0: [LEFT, RIGHT], 4: [LEFT]}, sure=True).source, clip)
    first = run(Grounded((detector, tracker), {0: [LEFT, RIGHT]}, sure=True).source, clip)
    last = run(Grounded((detector, tracker), {4: [LEFT]}, sure=True).source, clip)
    assert torch.equal(together > 0, (first > 0) | (last > 0))


def test_whoever_was_masked_in_a_window_is_followed_through_the_next(detector, tracker, clip):
    masks = run(Grounded((detector, tracker), {0: [LEFT]}, sure=True, window=6).source, clip)
    assert (masks == 1).flatten(1).any(1).all()
    assert masks.unique().tolist() in ([0, 1], [1])


def test_a_box_in_which_the_tracker_sees_nobody_is_masked_whole(detector, tracker, clip):
    masks = run(Grounded((detector, tracker), {4: [LEFT, RIGHT]}, sure=False).source, clip)
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[12:36, 8:24], expected[12:36, 40:56] = 255, 255
    assert torch.equal(masks[4], expected)
    assert not masks[[0, 1, 2, 3, 5, 6, 7, 8]].any()


def test_boxes_beside_the_frame_do_no_harm(detector, tracker, clip):
    boxes = [[63.9, 47.9, 64.0, 48.0], [0.0, 0.0, 0.0, 0.0], [60.0, 40.0, 64.0, 48.0]]
    masks = run(Grounded((detector, tracker), {0: boxes}, sure=False).source, clip)
    assert masks[0, 47, 63] == masks[0, 0, 0] == masks[0, 41, 61] == 255


def test_grounded_sam2_tells_weights_and_settings(detector, tracker):
    first = GroundedSam2Masks(str(detector), str(tracker)).identity()
    assert json.loads(json.dumps(first)) == first
    assert (first["detector"]["weights"], first["tracker"]["weights"]) == (detector.name, tracker.name)
    assert len({first["detector"]["revision"], first["tracker"]["revision"]}) == 2
    changed = {
        "prompts": ("human",), "detect_every": 2, "box_threshold": 0.3, "mask_threshold": 0.4, "max_hole": 0.0,
        "window": 16, "dtype": "fp32",
    }  # fmt: skip
    for name, value in changed.items():
        assert GroundedSam2Masks(str(detector), str(tracker), **{name: value}).identity() != first


@pytest.mark.parametrize("settings", [{"prompts": ()}, {"detect_every": 0}])
def test_grounded_sam2_refuses_settings_that_find_nobody(detector, tracker, settings):
    with pytest.raises(ValueError, match="prompts must name what to look for, and detect_every"):
        GroundedSam2Masks(str(detector), str(tracker), **settings).setup("cpu")


# --- Mask R-CNN


def test_mask_rcnn_masks_people_as_of_unknown_track(rcnn, clip):
    source = MaskRcnnMasks(rcnn, short_side=48, window=2)
    source.setup("cpu")
    parts = list(source.masks(clip, max_frames=3))
    assert [len(part) for part in parts] == [2, 1]
    masks = torch.cat(parts)
    assert masks.shape == (3, HEIGHT, WIDTH)
    assert masks.flatten(1).eq(255).any(1).all()
    assert set(masks.unique().tolist()) <= {0, 255}
    assert torch.equal(next(source.masks(clip, max_frames=2)), parts[0])


def test_mask_rcnn_leaves_things_alone(clip, tmp_path):
    path = tmp_path / "bicycles.pth"
    torch.save(build_mask_rcnn_state(label=2), path)
    source = MaskRcnnMasks(path, short_side=48)
    source.setup("cpu")
    assert not next(source.masks(clip, max_frames=1)).any()


def test_mask_rcnn_tells_weights_and_settings(rcnn, tmp_path):
    first = MaskRcnnMasks(rcnn).identity()
    assert json.loads(json.dumps(first)) == first
    changed = {"score_threshold": 0.3, "mask_threshold": 0.4, "max_hole": 0.0, "short_side": 600, "batch_size": 1}
    assert all(MaskRcnnMasks(rcnn, **{name: value}).identity() != first for name, value in changed.items())
    other = tmp_path / rcnn.name
    save_file({"a": torch.zeros(1)}, other)
    assert MaskRcnnMasks(other).identity() != first
    assert MaskRcnnMasks().identity()["weights"].endswith("73cbd019.pth")


def test_mask_rcnn_names_the_file_that_torchvision_downloads():
    weights = torchvision.models.get_weight("MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1")
    assert weights.url.endswith(mask_rcnn._HUB_WEIGHTS)
    assert weights.meta["categories"][mask_rcnn._PERSON] == "person"
    assert len(weights.meta["categories"]) == mask_rcnn._COCO_CATEGORIES


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold the state of maskrcnn_resnet50_fpn_v2"):
        MaskRcnnMasks(tmp_path / "other.safetensors").setup("cpu")


class Harm:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_not_read(tmp_path):
    torch.save({"weight": Harm(tmp_path / "harmed")}, tmp_path / "harm.pth")
    with pytest.raises(ValueError, match="must hold tensors only"):
        MaskRcnnMasks(tmp_path / "harm.pth").setup("cpu")
    assert not (tmp_path / "harmed").exists()


# --- what cannot be had


def test_what_cannot_be_downloaded_is_told_with_remedy_and_alternatives(monkeypatch, tmp_path):
    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", MagicMock(side_effect=URLError("no network"))
    )
    with pytest.raises(FileNotFoundError, match=r"no network.*fetch https://download.*; or use Sam3Masks .*MaskFiles"):
        MaskRcnnMasks().setup("cpu")
    with pytest.raises(FileNotFoundError, match=r"no weights of Mask R-CNN at .*nowhere.pth; None downloads them"):
        MaskRcnnMasks(tmp_path / "nowhere.pth").setup("cpu")


def test_a_gated_model_is_told_with_remedy_and_alternatives(monkeypatch):
    gated = MagicMock(side_effect=errors.GatedRepoError("", response=MagicMock()))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(
        FileNotFoundError,
        match=r"'facebook/sam3' is gated: accept its licence on the hub, then log in with `hf auth login`; "
        r"or use GroundedSam2Masks or MaskRcnnMasks \(both ungated\), or MaskFiles",
    ):
        Sam3Masks().setup("cpu")


def test_no_network_is_told_with_remedy_and_alternatives(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", MagicMock(side_effect=ConnectionError()))
    with pytest.raises(FileNotFoundError, match=r"hf download IDEA-Research/grounding-dino-base.*or use Sam3Masks"):
        GroundedSam2Masks().setup("cpu")


def test_a_model_of_another_kind_is_refused(detector, tracker):
    with pytest.raises(ValueError, match=r"must be a model of type sam2_video, its config.json says 'grounding-dino'"):
        GroundedSam2Masks(str(detector), str(detector)).setup("cpu")
    with pytest.raises(ValueError, match=r"must be a model of type sam3_video, its config.json says 'sam2_video'"):
        Sam3Masks(str(tracker)).setup("cpu")


def test_transformers_that_is_too_old_is_told():
    with pytest.raises(ValueError, match=r"transformers is missing or too old.*pip install.*or use something else"):
        transformers_classes("Sam9VideoModel", alternatives="something else")


# --- how they are made


@pytest.mark.parametrize("source", [Sam3Masks(), GroundedSam2Masks(), MaskRcnnMasks()])
def test_sources_travel_to_a_worker(source):
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 our own bytes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["Sam3Masks", "--masks.prompts", "[person, child]"], Sam3Masks(prompts=("person", "child"))),
        (["GroundedSam2Masks", "--masks.detect_every", "2"], GroundedSam2Masks(detect_every=2)),
        (["MaskRcnnMasks", "--masks.weights", "here.pth"], MaskRcnnMasks(Path("here.pth"))),
    ],
)
def test_sources_are_made_by_their_name_on_a_command_line(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--masks", type=MaskSource)
    name, *settings = arguments
    made = parser.instantiate(parser.parse_args(["--masks", f"regen_train.signals.{name}", *settings])).masks
    assert dataclasses.asdict(made) == dataclasses.asdict(expected)
