"""Depth extractors on tiny random models of their own classes, and the writer of what they yield."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regen_train.signals.depth import (
    DepthAnythingV2,
    DepthFiles,
    DepthSource,
    read_depth,
    write_depth,
    write_depth_stream,
)
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


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("depth") / "tiny-depth")


def save_depth_anything(folder: Path, **changes: Any) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=4, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    nn.init.constant_(model.head.conv3.bias, 3.0)  # its ReLU would hide a negative random depth
    model.save_pretrained(folder)
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


# --- Depth Anything V2


def test_depth_anything_covers_the_clip_once_in_order(model_folder: Path, clip: Path) -> None:
    source: DepthSource = DepthAnythingV2(str(model_folder), window=3, batch_size=2)
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes: as Ray ships it
    source.setup("cpu")
    windows = list(source.depth(clip))
    assert [len(window) for window in windows] == [3, 3, 1]
    depth = torch.cat(windows)
    assert depth.shape == (NUM_FRAMES, HEIGHT, WIDTH)
    assert depth.dtype == torch.float32
    assert depth.std() > 0
    assert torch.equal(depth, torch.cat(list(source.depth(clip))))
    start = torch.cat(list(source.depth(clip, max_frames=4)))
    assert len(start) == 4
    torch.testing.assert_close(start, depth[:4], rtol=1e-4, atol=1e-4)


def test_depth_anything_estimates_what_transformers_does(model_folder: Path, clip: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    from regen_train.video import decode_frames

    frame = next(decode_frames(clip)).rgb
    inputs = AutoImageProcessor.from_pretrained(model_folder)(images=frame, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModelForDepthEstimation.from_pretrained(model_folder)(**inputs).predicted_depth[None]
    expected = nn.functional.interpolate(expected, (HEIGHT, WIDTH), mode="bilinear")[0, 0]
    source = DepthAnythingV2(str(model_folder))
    source.setup("cpu")
    found = next(source.depth(clip, max_frames=1))[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_flicker_of_the_model_is_removed(model_folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DepthAnythingV2(str(model_folder), window=3, batch_size=1)
    source.setup("cpu")
    steady = torch.cat(list(source.depth(clip)))
    estimate, calls = source._estimate, iter(range(NUM_FRAMES))

    def flickering(frames: np.ndarray) -> Tensor:
        number = next(calls)
        return estimate(frames) * (1 + number) + 7.0 * number

    monkeypatch.setattr(source, "_estimate", flickering)
    found = torch.cat(list(source.depth(clip)))
    assert (found - steady).abs().max() < 1e-3 * (steady.max() - steady.min())


def test_depth_anything_says_what_it_is(model_folder: Path) -> None:
    first = DepthAnythingV2(str(model_folder)).identity()
    assert first["extractor"] == "depth_anything_v2"
    assert first["weights"] == "tiny-depth"
    assert len(first["revision"]) == 64
    assert str(model_folder.parent) not in str(first)
    assert DepthAnythingV2(str(model_folder), batch_size=1).identity() != first


def test_metric_depth_is_refused(tmp_path: Path) -> None:
    folder = save_depth_anything(tmp_path / "metric", depth_estimation_type="metric", max_depth=20)
    with pytest.raises(ValueError, match=r"relative depth.*'metric'.*V2-Small-hf.*DepthFiles"):
        DepthAnythingV2(str(folder)).setup("cpu")


def test_missing_weights_have_a_remedy_and_alternatives(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"hf download nobody/nothing.*DepthFiles"):
        DepthAnythingV2("nobody/nothing").setup("cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors.*DepthFiles"):
        DepthAnythingV2(str(tmp_path)).setup("cpu")


# --- files, and writing


@pytest.mark.parametrize("name", ["DepthAnythingV2", "DepthFiles", "VideoDepthAnything"])
def test_a_source_can_be_chosen_by_name_on_a_command_line(name: str) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--depth", type=DepthSource)
    root = ["--depth.root", "made"] if name == "DepthFiles" else []
    config = parser.parse_args(["--depth", f"regen_train.signals.{name}", "--depth.window", "30", *root])
    source = parser.instantiate(config).depth
    assert (type(source).__name__, source.window) == (name, 30)


def test_depth_files_come_in_windows(tmp_path: Path) -> None:
    depth = torch.randint(0, 65536, (5, 6, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    (tmp_path / "walk").mkdir()
    write_depth(tmp_path / "walk" / "depth.mkv", depth, 25)
    source: DepthSource = DepthFiles(tmp_path, window=2)
    source.setup("cpu")
    windows = list(source.depth(Path("clips/walk.mp4"), max_frames=3))
    assert [len(window) for window in windows] == [2, 1]
    assert torch.equal(torch.cat(windows).int(), depth[:3].int())
    assert source.identity() == {"extractor": "files"}
    with pytest.raises(FileNotFoundError):
        next(source.depth(Path("other.mp4")))


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any),
    scale=st.floats(1e-3, 1e6),
    shift=st.floats(-1e6, 1e6),
)
def test_a_stream_is_written_over_the_full_range(
    sizes: list[int], scale: float, shift: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("stream") / "depth.mkv"
    depth = scale * torch.rand(sum(sizes), 6, 7, generator=torch.Generator().manual_seed(0)) + shift
    assert write_depth_stream(path, depth.split(sizes), 25) == sum(sizes)
    found, exact = read_depth(path).int(), depth.double()
    low, high = exact.min(), exact.max()
    scaled = (exact - low) * (65535 / (high - low).clamp(min=1e-30))
    assert (found - scaled).abs().max() < 0.5 + 1e-6  # a value half way between two levels may become either
    assert [entry.name for entry in path.parent.iterdir()] == ["depth.mkv"]
    if low < high:
        assert (int(found.min()), int(found.max())) == (0, 65535)


def test_a_constant_clip_is_written(tmp_path: Path) -> None:
    assert write_depth_stream(tmp_path / "depth.mkv", iter([torch.full((2, 4, 4), 7.0)]), 25) == 2
    assert not read_depth(tmp_path / "depth.mkv").int().any()


def test_the_same_stream_gives_the_same_bytes(tmp_path: Path) -> None:
    depth = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, size in (("a.mkv", 1), ("b.mkv", 3)):
        write_depth_stream(tmp_path / name, depth.split(size), 25)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def bad_windows(kind: str) -> Iterator[Tensor]:
    yield torch.rand(2, 4, 4)
    if kind == "size":
        yield torch.rand(1, 4, 5)
    if kind == "nan":
        yield torch.tensor([[[0.0] * 4] * 4, [[torch.nan] * 4] * 4])
    if kind == "fault":
        raise OSError("the model broke")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("size", ValueError, r"frame 2 is \[4, 5\], before it \[4, 4\]"),
        ("nan", ValueError, "frame 3 is not finite"),
        ("fault", OSError, "the model broke"),
    ],
)
def test_a_faulty_stream_leaves_nothing(tmp_path: Path, kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write_depth_stream(tmp_path / "depth.mkv", bad_windows(kind), 25)
    assert not list(tmp_path.iterdir())


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames of depth"):
        write_depth_stream(tmp_path / "depth.mkv", [], 25)
