"""Video Depth Anything through a stub with the interface of its repository."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from regen_train.signals.depth import DepthSource, VideoDepthAnything
from regen_train.video import write_video

NUM_FRAMES, HEIGHT, WIDTH = 7, 45, 62


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "walk.mkv"
    still = torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = still.repeat(NUM_FRAMES, 1, 1, 1)
    for number in range(NUM_FRAMES):
        frames[number, 20:40, 6 * number : 6 * number + 10] = 250
    write_video(path, frames, 10, codec="ffv1")
    return path


class StubModel(nn.Module):
    """What `video_depth_anything.video_depth.VideoDepthAnything` shows to the outside."""

    calls: list[int]

    def __init__(self, encoder: str, features: int, out_channels: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, len(out_channels)))
        self.encoder, self.calls = encoder, []

    def infer_video_depth(
        self, frames: np.ndarray, target_fps: int, input_size: int = 518, device: str = "cuda", fp32: bool = False
    ) -> tuple[np.ndarray, int]:
        assert frames.dtype == np.uint8
        assert (device, fp32, input_size % 14) == ("cpu", True, 0)
        self.calls.append(len(frames))
        gray = frames.astype(np.float32).mean(-1) + self.weight.detach().numpy()[0, 0]
        return gray * (1 + len(self.calls)) + 100 * len(self.calls), target_fps


@pytest.fixture
def stub_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = types.ModuleType("video_depth_anything"), types.ModuleType("video_depth_anything.video_depth")
    module.VideoDepthAnything = StubModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "video_depth_anything", package)
    monkeypatch.setitem(sys.modules, "video_depth_anything.video_depth", module)


@pytest.fixture
def video_weights(tmp_path: Path) -> Path:
    folder = tmp_path / "vda"
    folder.mkdir()
    torch.save(StubModel("vits", 64, [48, 96, 192, 384]).state_dict(), folder / "video_depth_anything_vits.pth")
    return folder


@pytest.mark.usefixtures("stub_package")
def test_video_depth_anything_joins_its_windows_on_one_scale(video_weights: Path, clip: Path) -> None:
    source: DepthSource = VideoDepthAnything(str(video_weights), window=4, overlap=2)
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes: as Ray ships it
    source.setup("cpu")
    depth = torch.cat(list(source.depth(clip)))
    assert depth.shape == (NUM_FRAMES, HEIGHT, WIDTH)
    whole = VideoDepthAnything(str(video_weights), window=20, overlap=2)
    whole.setup("cpu")
    expected = torch.cat(list(whole.depth(clip)))
    assert (depth - expected).abs().max() < 1e-3 * (expected.max() - expected.min())
    assert whole._model.calls == [NUM_FRAMES]
    assert source._model.calls == [4, 4, 3]  # type: ignore[attr-defined]
    assert len(source.identity()["sha256"]["video_depth_anything_vits.pth"]) == 64
    assert torch.cat(list(source.depth(clip, max_frames=4))).shape[0] == 4


@pytest.mark.usefixtures("stub_package")
def test_a_pickle_in_place_of_weights_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"weight": Bomb()}, tmp_path / "video_depth_anything_vits.pth")
    with pytest.raises(ValueError, match="must hold the weights of encoder 'vits'"):
        VideoDepthAnything(str(tmp_path)).setup("cpu")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.usefixtures("stub_package")
def test_weights_of_another_encoder_are_refused(video_weights: Path) -> None:
    (video_weights / "video_depth_anything_vits.pth").rename(video_weights / "video_depth_anything_vitl.pth")
    with pytest.raises(ValueError, match="must hold the weights of encoder 'vitl'"):
        VideoDepthAnything(str(video_weights), encoder="vitl").setup("cpu")


def test_a_missing_package_has_a_remedy_and_alternatives(video_weights: Path) -> None:
    with pytest.raises(ValueError, match=r"PyPI does not have: `git clone .*DepthAnythingV2.*DepthFiles"):
        VideoDepthAnything(str(video_weights)).setup("cpu")


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="window must be above overlap"):
        VideoDepthAnything(window=4, overlap=4)


def test_missing_weights_have_a_remedy_and_alternatives(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks video_depth_anything_vits.pth; .*DepthFiles"):
        VideoDepthAnything(str(tmp_path)).identity()


def test_gated_weights_name_the_licence_page(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: object, **__: object) -> None:
        raise GatedRepoError("gated", response=MagicMock())

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"gated: accept its licence at https://huggingface.co/a/b.*DepthFiles"):
        VideoDepthAnything("a/b").identity()
