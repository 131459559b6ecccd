"""Keypoint R-CNN: torchvision's own class with random weights."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regen_train.signals.pose import KeypointRcnn, PoseSource, join_poses
from regen_train.signals.pose.keypoint_rcnn import build_model, people_of, score_of_logits
from regen_train.signals.pose.people import Tracker
from regen_train.video import write_video

FEW = 0.4915
"""Random weights give 63 boxes of scores 0.486 to 0.493; the best ten are enough."""


@pytest.fixture(scope="module")
def body_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.endswith("running_var"):  # so small that an epsilon shows, and made up for
            value.fill_(1e-5)
            state[name.replace("running_var", "weight")].fill_(1e-5**0.5)
        elif "conv" in name:
            value.mul_(0.6)  # an untrained network's activations explode
    return state


@pytest.fixture
def small_clip(tmp_path: Path) -> Path:
    frames = torch.randint(0, 256, (3, 65, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "clip.mkv", frames, 10, codec="ffv1")
    return tmp_path / "clip.mkv"


def test_keypoint_rcnn_finds_bodies(body_state: dict[str, torch.Tensor], small_clip: Path, tmp_path: Path) -> None:
    torch.save(body_state, tmp_path / "body.pth")
    source: PoseSource = KeypointRcnn(tmp_path / "body.pth", min_box_score=FEW, min_size=64, window=2)
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes: as Ray ships it
    source.setup("cpu")
    windows = list(source.poses(small_clip))
    assert [len(window) for window in windows] == [2, 1]
    found = join_poses(windows)
    assert found.keypoints.shape[1] > 0
    body, rest = found.keypoints[..., :17, :], found.keypoints[..., 17:, :]
    present = found.scores.amax(-1) > 0
    assert body[present].isfinite().all()
    assert rest.isnan().all()
    assert not found.scores[..., 17:].any()
    again = join_poses(source.poses(small_clip))
    assert torch.equal(again.scores, found.scores)
    identity = source.identity()
    assert len(identity["sha256"]["body.pth"]) == 64
    assert str(tmp_path) not in str(identity)


def test_our_keypoint_rcnn_is_torchvisions_with_its_weights(
    body_state: dict[str, torch.Tensor], small_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import detection
    from torchvision.models._api import WeightsEnum

    from regen_train.video import decode_frames

    asked: list[dict[str, Any]] = []

    def give(_: object, **options: Any) -> dict[str, torch.Tensor]:
        asked.append(options)
        return body_state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)
    theirs = detection.keypointrcnn_resnet50_fpn(
        weights=detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_V1, min_size=64, box_score_thresh=FEW
    ).eval()
    ours = KeypointRcnn(min_box_score=FEW, min_size=64)
    ours.setup("cpu")
    assert asked[-1]["weights_only"] is True
    picture = torch.from_numpy(next(decode_frames(small_clip)).rgb).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        expected = theirs([picture])[0]["keypoints"][..., :2]
    found = next(ours.poses(small_clip, max_frames=1)).keypoints[0, :, :17]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_logits_become_scores_that_draw_where_the_logit_is_two() -> None:
    logits = np.array([-10.0, 0.0, 2.0, 5.0, 20.0], np.float32)
    scores = score_of_logits(logits)
    assert scores[2] == pytest.approx(0.3, abs=1e-6)
    assert (np.diff(scores) > 0).all()
    assert scores[0] < 1e-3
    assert scores[-1] <= 1


def test_nobody_is_nobody() -> None:
    empty = {"boxes": torch.zeros(0, 4), "keypoints": torch.zeros(0, 17, 3), "keypoints_scores": torch.zeros(0, 17)}
    assert people_of(empty, Tracker()).keypoints.shape == (0, 133, 2)


def test_bad_weights_of_keypoint_rcnn_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models._api import WeightsEnum

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"bomb.pth must hold tensors only"):
        KeypointRcnn(tmp_path / "bomb.pth").setup("cpu")
    assert not (tmp_path / "exploded").exists()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth must hold the state of keypointrcnn_resnet50_fpn"):
        KeypointRcnn(tmp_path / "other.pth").setup("cpu")
    with pytest.raises(FileNotFoundError, match=r"no weights .* at .*none.pth.*DwPose.*PoseFiles"):
        KeypointRcnn(tmp_path / "none.pth").setup("cpu")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(
        FileNotFoundError, match=r"no network.*keypointrcnn_resnet50_fpn_coco.*`weights`; or use DwPose"
    ):
        KeypointRcnn().setup("cpu")
