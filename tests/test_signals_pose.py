"""DWPose on tiny graphs with the signatures of YOLOX and DWPose; pose files and windows."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from regen_train.signals import pose as poses
from regen_train.signals.pose import DwPose, PoseFiles, Poses, PoseSource, join_poses, write_poses
from regen_train.signals.pose.onnx_model import OnnxModel
from regen_train.video import write_gray, write_video

DETECTOR_SIZE = (96, 128)
BOX = (24.0, 40.0)
"""Width and height of each box the tiny detector finds, in pixels of what it sees."""


def save_graph(path: Path, nodes: list[Any], inputs: Any, outputs: list[Any], constants: dict[str, np.ndarray]) -> None:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [inputs], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def save_detector(path: Path) -> None:
    """A YOLOX whose anchors of stride 8 see a person where their cell is blue; one picture at a time, as exported."""
    height, width = DETECTOR_SIZE
    cells = [(height // stride) * (width // stride) for stride in (8, 16, 32)]
    total = sum(cells)
    front = np.zeros((1, total, 4), np.float32)
    front[..., :2], front[..., 2:] = 0.5, np.log(np.array(BOX) / 8)
    back = np.zeros((1, total, 80), np.float32)
    back[..., 0] = 1
    constants = {
        "front": front, "back": back, "others": np.zeros((1, total - cells[0], 1), np.float32),
        "low": np.float32(150), "range": np.float32(100), "zero": np.float32(0), "one": np.float32(1),
        "begin": np.array([0]), "end": np.array([1]), "axis": np.array([1]), "rows": np.array([1, -1, 1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["images", "begin", "end", "axis"], ["blue"]),
        helper.make_node("AveragePool", ["blue"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["pooled", "low"], ["above"]),
        helper.make_node("Div", ["above", "range"], ["share"]),
        helper.make_node("Clip", ["share", "zero", "one"], ["sure"]),
        helper.make_node("Reshape", ["sure", "rows"], ["first"]),
        helper.make_node("Concat", ["first", "others"], ["objectness"], axis=1),
        helper.make_node("Concat", ["front", "objectness", "back"], ["output"], axis=2),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])
    answer = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, total, 85])
    save_graph(path, nodes, entry, [answer], constants)


def save_pose_model(path: Path, keypoints: int = 133) -> None:
    """A SimCC model that puts every point on the reddest pixel, its score the red above the mean."""
    constants = {
        "begin": np.array([0]), "end": np.array([1]), "axis": np.array([1]), "small": np.float32(1e-3),
        "repeats": np.array([1, keypoints, 1]), "columns": np.array([0, 1, -1]), "half": np.float32(0.5),
    }  # fmt: skip
    nodes = [helper.make_node("Slice", ["input", "begin", "end", "axis"], ["red4"])]
    nodes += [helper.make_node("Mul", ["red4", "half"], ["red"])]
    for name, axis in (("simcc_x", 2), ("simcc_y", 3)):
        nodes += [
            helper.make_node("ReduceMax", ["red"], [f"{name}1"], axes=[axis], keepdims=0),
            helper.make_node("Unsqueeze", [f"{name}1", "last"], [f"{name}2"]),
            helper.make_node("Sub", [f"{name}2", "small"], [f"{name}3"]),
            helper.make_node("Concat", [f"{name}2", f"{name}3"], [f"{name}4"], axis=3),
            helper.make_node("Reshape", [f"{name}4", "columns"], [f"{name}5"]),
            helper.make_node("Tile", [f"{name}5", "repeats"], [name]),
        ]
    constants["last"] = np.array([3])
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 384, 288])
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", keypoints, bins])
        for name, bins in (("simcc_x", 576), ("simcc_y", 768))
    ]
    save_graph(path, nodes, entry, answers, constants)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-dwpose"
    path.mkdir()
    save_detector(path / "yolox_l.onnx")
    save_pose_model(path / "dw-ll_ucoco_384.onnx")
    return path


def paint(height: int, width: int, cells: list[tuple[int, int]]) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """Return a frame with a blue person at each detector cell (column, row), and where each one's red dot is."""
    factor = min(DETECTOR_SIZE[0] / height, DETECTOR_SIZE[1] / width)
    frame = np.full((height, width, 3), 40, np.float32)
    rows, columns = np.mgrid[:height, :width]
    dots = []
    for column, row in cells:
        left, top, right, bottom = (8 * value / factor for value in (column, row, column + 1, row + 1))
        inside = (columns + 0.5 > left) & (columns + 0.5 < right) & (rows + 0.5 > top) & (rows + 0.5 < bottom)
        frame[inside, 2] = 255
        x, y = round((left + right) / 2 + 3), round((top + bottom) / 2 - 5)
        dots.append((x, y))
        frame[..., 0] = np.maximum(frame[..., 0], 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4))
    return torch.from_numpy(frame.round().astype(np.uint8)), dots


SIZES = [(181, 121), (97, 203), (240, 320)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_dots_are_found_again_through_letterbox_crop_and_decoding(
    folder: Path, tmp_path: Path, height: int, width: int
) -> None:
    cells = [[(5, 3)], [], [(2, 5), (6, 1)], [(5, 3)]]
    painted = [paint(height, width, list(chosen)) for chosen in cells]
    write_video(tmp_path / "clip.mkv", torch.stack([frame for frame, _ in painted]), 10, codec="ffv1")
    source = DwPose(str(folder), window=3, batch_size=2, threads=1)
    source.setup("cpu")
    windows = list(source.poses(tmp_path / "clip.mkv"))
    assert [tuple(window.keypoints.shape) for window in windows] == [(3, 2, 133, 2), (1, 1, 133, 2)]
    found = join_poses(windows)
    for number, (_, dots) in enumerate(painted):
        here = found.scores[number].amin(-1) > 0.3
        assert int(here.sum()) == len(dots)
        assert not found.keypoints[number][~here].isfinite().any()
        assert found.track is not None
        assert torch.equal(found.track[number] >= 0, here)
        points = sorted(found.keypoints[number][here][:, 0].tolist())
        for point, dot in zip(points, sorted(dots), strict=True):
            assert point == pytest.approx(dot, abs=0.5)
        spread = found.keypoints[number][here] - found.keypoints[number][here][:, :1]
        assert not spread.any()


def test_a_red_person_is_none_for_a_detector_of_blue(folder: Path, tmp_path: Path) -> None:
    """YOLOX takes BGR: with the channels the wrong way round it would be found."""
    frame, _ = paint(96, 128, [(5, 5)])
    write_video(tmp_path / "clip.mkv", frame[None].flip(-1), 10, codec="ffv1")
    source = DwPose(str(folder))
    source.setup("cpu")
    window = next(source.poses(tmp_path / "clip.mkv"))
    assert window.keypoints.shape == (1, 0, 133, 2)
    write_poses(tmp_path / "pose.safetensors", window)
    assert len(poses.read_poses(tmp_path / "pose.safetensors")) == 1


@pytest.fixture
def masked_clip(tmp_path: Path) -> Path:
    """Two tracked people, one of whom leaves, and an untracked one with a speck of dust."""
    frames = torch.full((5, 120, 161, 3), 40, dtype=torch.uint8)
    mask = torch.zeros(5, 120, 161, dtype=torch.uint8)
    mask[:, 20:90, 10:40], mask[:3, 30:100, 60:90], mask[:, 10:70, 120:150] = 7, 3, 255
    mask[:, 0, 0] = 255
    for x, y in ((22, 50), (75, 60), (135, 33)):
        frames[:, y, x, 0] = 255
    write_video(tmp_path / "clip.mkv", frames, 10, codec="ffv1")
    (tmp_path / "masks" / "clip").mkdir(parents=True)
    write_gray(tmp_path / "masks" / "clip" / "mask.mkv", mask, 10)
    return tmp_path / "clip.mkv"


def test_boxes_can_come_from_masks_with_their_tracks(folder: Path, masked_clip: Path, tmp_path: Path) -> None:
    only_pose = tmp_path / "pose-only"
    only_pose.mkdir()
    (only_pose / "dw-ll_ucoco_384.onnx").write_bytes((folder / "dw-ll_ucoco_384.onnx").read_bytes())
    source: PoseSource = DwPose(str(only_pose), mask_root=masked_clip.parent / "masks", window=2)
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes: as Ray ships it
    source.setup("cpu")
    found = join_poses(source.poses(masked_clip))
    assert found.track is not None
    assert found.track.tolist() == [[3, 7, -1]] * 3 + [[7, -1, -1]] * 2
    for person, dot in enumerate([(75, 60), (22, 50), (135, 33)]):
        torch.testing.assert_close(found.keypoints[0, person, 0], torch.tensor(dot).float(), rtol=0, atol=0.5)
    assert not found.keypoints[4, 2].isfinite().any()
    assert not found.scores[4, 2].any()
    assert len(join_poses(source.poses(masked_clip, max_frames=4))) == 4
    settings = source.identity()["settings"]
    assert settings["boxes"] == "masks"


def test_masks_that_do_not_fit_are_refused(folder: Path, masked_clip: Path) -> None:
    source = DwPose(str(folder), mask_root=masked_clip.parent / "masks")
    source.setup("cpu")
    path = masked_clip.parent / "masks" / "clip" / "mask.mkv"
    write_gray(path, torch.zeros(4, 120, 161, dtype=torch.uint8), 10)
    with pytest.raises(ValueError, match=r"masks of .*clip.mkv end before the clip"):
        list(source.poses(masked_clip))
    write_gray(path, torch.zeros(5, 120, 160, dtype=torch.uint8), 10)
    with pytest.raises(ValueError, match=r"\[120, 160\] \(height x width\), its frames \[120, 161\]"):
        list(source.poses(masked_clip))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        list(source.poses(masked_clip))


def test_the_same_clip_gives_the_same_poses(folder: Path, tmp_path: Path) -> None:
    frame, _ = paint(120, 90, [(4, 4)])
    write_video(tmp_path / "clip.mkv", frame.repeat(3, 1, 1, 1), 10, codec="ffv1")
    found = []
    for batch in (1, 3):
        source = DwPose(str(folder), batch_size=batch)
        source.setup("cpu")
        found += [join_poses(source.poses(tmp_path / "clip.mkv")) for _ in range(2)]
    assert all(torch.equal(found[0].keypoints, other.keypoints) for other in found[1:])
    assert all(torch.equal(found[0].scores, other.scores) for other in found[1:])
    assert found[0].track is not None
    assert found[0].track.tolist() == [[0], [0], [0]]


def test_dwpose_says_what_it_is(folder: Path) -> None:
    identity = DwPose(str(folder)).identity()
    assert (identity["extractor"], identity["weights"]) == ("dwpose", "tiny-dwpose")
    assert sorted(identity["sha256"]) == ["dw-ll_ucoco_384.onnx", "yolox_l.onnx"]
    assert str(folder.parent) not in str(identity)
    assert DwPose(str(folder), min_box_score=0.5).identity() != identity
    assert DwPose(str(folder), window=7).identity() == identity


# --- what is refused


def test_a_missing_package_has_a_remedy_and_alternatives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '\.\[prep\]'.*KeypointRcnn.*PoseFiles"):
        DwPose(str(folder)).setup("cpu")


def test_missing_files_have_a_remedy_and_alternatives(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks dw-ll_ucoco_384.onnx, yolox_l.onnx; .*KeypointRcnn"):
        DwPose(str(tmp_path)).setup("cpu")
    with pytest.raises(FileNotFoundError, match=r"hf download yzd-v/DWPose dw-ll.*PoseFiles"):
        DwPose(revision="0" * 40).setup("cpu")


def test_files_of_another_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_video(clip, paint(96, 128, [(5, 5)])[0][None], 10, codec="ffv1")
    pose, detector = tmp_path / "dw-ll_ucoco_384.onnx", tmp_path / "yolox_l.onnx"
    detector.write_bytes((folder / "yolox_l.onnx").read_bytes())
    pose.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"dw-ll_ucoco_384.onnx cannot be opened as an ONNX model"):
        DwPose(str(tmp_path)).setup("cpu")
    save_pose_model(pose, keypoints=17)
    body = DwPose(str(tmp_path))
    body.setup("cpu")
    with pytest.raises(ValueError, match=r"two outputs \[n, 133, bins\].*\[1, 17, 576\]"):
        list(body.poses(clip))
    pose.write_bytes((folder / "dw-ll_ucoco_384.onnx").read_bytes())
    detector.write_bytes(pose.read_bytes())
    swapped = DwPose(str(tmp_path))
    swapped.setup("cpu")
    with pytest.raises(ValueError, match=r"must be YOLOX with raw output"):
        list(swapped.poses(clip))


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3, "h", "w"])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3, "h", "w"])
    save_graph(tmp_path / "same.onnx", [helper.make_node("Identity", ["x"], ["y"])], entry, [answer], {})
    model = OnnxModel(tmp_path / "same.onnx", "cpu", threads=1, size=(6, 8))
    pictures = np.random.default_rng(0).random((7, 3, 6, 8), np.float32)
    assert model.size == (6, 8)
    assert np.array_equal(model.run(pictures)[0], pictures)


def test_without_a_cuda_provider_the_cpu_is_taken_and_that_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    DwPose(str(folder)).setup("cuda:1")
    assert "poses run on the CPU" in caplog.text


# --- files and windows


@pytest.mark.parametrize("name", ["DwPose", "KeypointRcnn", "PoseFiles"])
def test_a_source_can_be_chosen_by_name_on_a_command_line(name: str) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--poses", type=PoseSource)
    extra = {"PoseFiles": ["--poses.root", "made"], "DwPose": ["--poses.mask_root", "made"]}.get(name, [])
    config = parser.parse_args(["--poses", f"regen_train.signals.{name}", "--poses.window", "30", *extra])
    source = parser.instantiate(config).poses
    assert (type(source).__name__, source.window) == (name, 30)


def some_window(num_frames: int, people: int, *, track: bool = True) -> Poses:
    keypoints = torch.rand(num_frames, people, 133, 2, generator=torch.Generator().manual_seed(people))
    tracks = torch.zeros(num_frames, people, dtype=torch.int64) if track else None
    return Poses(keypoints, torch.ones(num_frames, people, 133), tracks)


def test_windows_of_different_numbers_of_people_are_joined() -> None:
    joined = join_poses(iter([some_window(2, 1), some_window(1, 3), some_window(2, 0)]))
    assert joined.keypoints.shape == (5, 3, 133, 2)
    assert torch.equal(joined.keypoints[2], some_window(1, 3).keypoints[0])
    assert joined.track is not None
    assert joined.track.tolist() == [[0, -1, -1]] * 2 + [[0, 0, 0]] + [[-1, -1, -1]] * 2
    assert joined.keypoints[3:].isnan().all()
    assert not joined.scores[3:].any()
    assert join_poses([some_window(1, 1, track=False)]).track is None
    with pytest.raises(ValueError, match="all windows of poses must have tracks or none"):
        join_poses([some_window(1, 1), some_window(1, 1, track=False)])
    with pytest.raises(ValueError, match="no window"):
        join_poses([])


def test_pose_files_come_in_windows(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    stored = some_window(5, 2)
    write_poses(tmp_path / "walk" / "pose.safetensors", stored)
    source: PoseSource = PoseFiles(tmp_path, window=2)
    source.setup("cpu")
    windows: Iterator[Poses] = source.poses(Path("clips/walk.mp4"))
    assert torch.equal(join_poses(windows).keypoints, stored.keypoints)
    assert [len(window) for window in source.poses(Path("walk.mp4"), max_frames=3)] == [2, 1]
    assert source.identity() == {"extractor": "files"}
