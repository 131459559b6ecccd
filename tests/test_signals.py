"""Signals on disk: read with every check, written whole or not at all."""

import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regen_train.files import file_sha256
from regen_train.signals import (
    CaptionFiles,
    CaptionSource,
    DepthFiles,
    DepthSource,
    MaskFiles,
    MaskSource,
    PoseFiles,
    Poses,
    PoseSource,
    load_signals,
    stream_signals,
    write_signals,
)
from regen_train.signals.pose import join_poses
from regen_train.video import decode_gray, write_gray, write_video

NUM_FRAMES, HEIGHT, WIDTH = 6, 24, 32
CAPTION = "Somebody walks through a hall."


def some_poses(num_frames: int = NUM_FRAMES, *, track: bool = True) -> Poses:
    generator = torch.Generator().manual_seed(num_frames)
    keypoints = 80 * torch.rand(num_frames, 2, 133, 2, generator=generator) - 20
    keypoints[:, 1, 23:91] = torch.nan
    tracks = torch.tensor([[0, -1]]).expand(num_frames, 2).contiguous() if track else None
    return Poses(keypoints, torch.rand(num_frames, 2, 133, generator=generator), tracks)


def some_mask(num_frames: int = NUM_FRAMES, height: int = HEIGHT) -> torch.Tensor:
    mask = torch.zeros(num_frames, height, WIDTH, dtype=torch.uint8)
    mask[:, 5:10, 5:10], mask[:, 12:, 20:] = 1, 255
    return mask + torch.arange(num_frames, dtype=torch.uint8)[:, None, None] * (mask == 1)


def some_depth() -> torch.Tensor:
    return torch.arange(NUM_FRAMES * HEIGHT * WIDTH).reshape(NUM_FRAMES, HEIGHT, WIDTH).to(torch.uint16)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two frames longer than the signals."""
    frames = torch.randint(0, 256, (NUM_FRAMES + 2, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    write_video(tmp_path / "walk.mkv", frames, 10, codec="ffv1")
    return tmp_path / "walk.mkv"


@pytest.fixture
def folder(tmp_path: Path, clip: Path) -> Path:
    path = tmp_path / "signals" / "walk"
    write_signals(
        path,
        mask=some_mask(),
        people=some_poses(),
        caption=CAPTION,
        source_sha256=file_sha256(clip),
        depth=some_depth(),
        meta={"mask": {"extractor": "drawn"}},
    )
    return path


def change_meta(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / "signals.json").read_text())
    (folder / "signals.json").write_text(json.dumps({**meta, **changes}))


def test_what_is_written_is_read(folder: Path, clip: Path) -> None:
    signals = load_signals(folder, clip=clip)
    people = some_poses()
    assert torch.equal(signals.mask, some_mask())
    assert torch.equal(signals.people, some_mask() > 0)
    assert torch.equal(signals.keypoints.nan_to_num(), people.keypoints.nan_to_num())
    assert torch.equal(signals.keypoints.isnan(), people.keypoints.isnan())
    assert torch.equal(signals.scores, people.scores)
    assert signals.track is not None
    assert signals.track[0].tolist() == [0, -1]
    assert signals.depth is not None
    assert torch.equal(signals.depth, some_depth())
    assert (signals.caption, signals.num_frames, signals.source_sha256) == (CAPTION, NUM_FRAMES, file_sha256(clip))
    assert signals.meta["mask"] == {"extractor": "drawn"}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["walk"]


def test_some_frames_can_be_picked(folder: Path, clip: Path) -> None:
    indices = [5, 0, 0, 3]
    signals = load_signals(folder, clip=clip, indices=indices)
    assert torch.equal(signals.mask, some_mask()[indices])
    assert torch.equal(signals.scores, some_poses().scores[indices])
    assert signals.depth is not None
    assert torch.equal(signals.depth.int(), some_depth().int()[indices])
    assert signals.num_frames == NUM_FRAMES
    with pytest.raises(ValueError, match=r"mask\.mkv has 6 frames; asked for.*pose\.safetensors has 6 frames; asked"):
        load_signals(folder, indices=[0, 6])


def test_windows_are_streamed_with_each_file_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def decode(path: Path) -> Iterator[torch.Tensor]:
        opened.append(path.name)
        return decode_gray(path)

    monkeypatch.setattr("regen_train.signals.folder.decode_gray", decode)
    windows = [(0, 0, 2), (3, 3, 5)]
    for window, signals in zip(windows, stream_signals(folder, windows), strict=True):
        expected = load_signals(folder, indices=window)
        assert torch.equal(signals.mask, expected.mask)
        assert torch.equal(signals.scores, expected.scores)
        assert signals.depth is not None
        assert expected.depth is not None
        assert torch.equal(signals.depth.int(), expected.depth.int())
        assert (signals.caption, signals.num_frames) == (CAPTION, NUM_FRAMES)
    assert sorted(opened) == ["depth.mkv", "mask.mkv"]
    with pytest.raises(ValueError, match=r"\.mkv ends before frame 6"):
        next(stream_signals(folder, [(5, 6)]))


def test_depth_and_tracks_may_be_missing(folder: Path, clip: Path) -> None:
    (folder / "depth.mkv").unlink()
    save_file({"keypoints": some_poses().keypoints, "scores": some_poses().scores}, folder / "pose.safetensors")
    signals = load_signals(folder, clip=clip)
    assert signals.depth is None
    assert signals.track is None


def test_scores_that_are_nan_count_as_none(folder: Path) -> None:
    people = some_poses(track=False)
    people.scores[0, 0, 0] = torch.nan
    save_file({"keypoints": people.keypoints, "scores": people.scores}, folder / "pose.safetensors")
    assert load_signals(folder).scores[0, 0, 0] == 0


def test_each_signal_has_a_backend_of_files(folder: Path, clip: Path) -> None:
    masks: MaskSource = MaskFiles(folder.parent)
    poses: PoseSource = PoseFiles(folder.parent)
    depth: DepthSource = DepthFiles(folder.parent)
    captions: CaptionSource = CaptionFiles(folder.parent)
    assert torch.equal(torch.cat(list(masks.masks(clip, max_frames=3))), some_mask()[:3])
    assert torch.equal(join_poses(poses.poses(clip, max_frames=3)).scores, some_poses().scores[:3])
    assert torch.equal(torch.cat(list(depth.depth(clip))).int(), some_depth().int())
    assert captions.caption(clip) == CAPTION


# --- what is refused


def rewrite_poses(folder: Path, **changes: torch.Tensor) -> None:
    people = some_poses(track=False)
    save_file({"keypoints": people.keypoints, "scores": people.scores, **changes}, folder / "pose.safetensors")


def lie_about_offsets(folder: Path) -> None:
    header = json.dumps({"keypoints": {"dtype": "F32", "shape": [6, 1, 133, 2], "data_offsets": [0, 10**12]}}).encode()
    (folder / "pose.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))


def cut_mask(folder: Path) -> None:
    data = (folder / "mask.mkv").read_bytes()
    (folder / "mask.mkv").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "mask.mkv").unlink(), r"no video file at .*mask\.mkv"),
        (lambda f: (f / "pose.safetensors").unlink(), "no poses at"),
        (lambda f: (f / "caption.txt").unlink(), "no caption at"),
        (lambda f: (f / "signals.json").unlink(), r"no signals\.json at"),
        (lambda f: write_gray(f / "mask.mkv", some_mask(5), 5), r"mask\.mkv has 5 frames, it should have 6"),
        (lambda f: write_gray(f / "mask.mkv", some_mask(9), 5), r"mask\.mkv has more than the 6 frames"),
        (lambda f: write_gray(f / "depth.mkv", some_depth()[:4], 5), r"depth\.mkv has 4 frames, it should have 6"),
        (lambda f: rewrite_poses(f, **vars(some_poses(7))), r"pose\.safetensors has 7 frames, it should have 6"),
        (lambda f: write_gray(f / "mask.mkv", some_depth(), 5), "must be 8-bit gray"),
        (lambda f: write_gray(f / "depth.mkv", some_mask(), 5), "must be 16-bit gray"),
        (cut_mask, r"mask\.mkv is cut off"),
        (lambda f: write_gray(f / "mask.mkv", some_mask(height=20), 5), r"depth\.mkv is 24x32.*mask\.mkv is 20x32"),
        (lambda f: (f / "caption.txt").write_text(" \n"), r"caption\.txt is empty"),
        (lambda f: (f / "caption.txt").write_bytes(b"\xff\xfe\xff"), "must be UTF-8"),
        (lambda f: (f / "caption.txt").write_text("word " * 20000), "at most 65536 bytes"),
        (lambda f: (f / "signals.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "signals.json").write_text("[]"), "must be a JSON object, got list"),
        (
            lambda f: change_meta(f, num_frames=True, source_sha256="abc"),
            "num_frames must state.*source_sha256 must be",
        ),
        (lambda f: rewrite_poses(f, keypoints=torch.zeros(6, 2, 17, 2)), r"must be float32 \[t, p, 133, 2\], got F32"),
        (lambda f: rewrite_poses(f, scores=torch.zeros(6, 2, 133).double()), r"scores must be float32.*got F64"),
        (lambda f: rewrite_poses(f, track=torch.zeros(6, 3, dtype=torch.int64)), r"track must be int64 \[t, p\]"),
        (lambda f: rewrite_poses(f, tracks=torch.zeros(1)), "tracks is not one of keypoints, scores, track"),
        (lambda f: save_file({"scores": torch.zeros(1)}, f / "pose.safetensors"), "keypoints is missing"),
        (lambda f: rewrite_poses(f, keypoints=torch.full((6, 2, 133, 2), torch.inf)), "keypoints holds infinite"),
        (lambda f: (f / "pose.safetensors").write_bytes(pickle.dumps({"keypoints": 1})), "no whole safetensors file"),
        (lie_about_offsets, "no whole safetensors file"),
    ],
)
def test_each_fault_is_named(folder: Path, clip: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message):
        load_signals(folder, clip=clip)


def test_all_faults_are_named_at_once(folder: Path, clip: Path) -> None:
    (folder / "caption.txt").unlink()
    cut_mask(folder)
    rewrite_poses(folder, tracks=torch.zeros(1))
    change_meta(folder, num_frames=100)
    with pytest.raises(ValueError, match=r"cannot be used") as error:
        load_signals(folder, clip=clip)
    for fault in ("no caption", "mask.mkv is cut off", "tracks is not one of", "depth.mkv has 6 frames", "has 8"):
        assert fault in str(error.value)


def test_signals_of_another_clip_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    write_video(other, torch.zeros(NUM_FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8), 10, codec="ffv1")
    with pytest.raises(ValueError, match="made from another file"):
        load_signals(folder, clip=other)
    change_meta(folder, source_sha256=file_sha256(other).upper())
    assert load_signals(folder, clip=other).source_sha256 == file_sha256(other)


def test_signals_longer_or_larger_than_the_clip_are_refused(folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mkv"
    write_video(short, torch.zeros(NUM_FRAMES - 1, HEIGHT + 2, WIDTH, 3, dtype=torch.uint8), 10, codec="ffv1")
    change_meta(folder, source_sha256=file_sha256(short))
    with pytest.raises(ValueError, match=r"state 6 frames, .* has 5; mask\.mkv is 24x32 .* is 26x32 upright"):
        load_signals(folder, clip=short)


def test_missing_folders_and_clips(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of signals"):
        load_signals(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no clip at"):
        load_signals(folder, clip=tmp_path / "nowhere.mp4")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "signals" / "walk"
    options = {"people": some_poses(), "source_sha256": "0" * 64}
    with pytest.raises(ValueError, match="a caption must have"):
        write_signals(target, mask=some_mask(), caption="", **options)
    with pytest.raises(ValueError, match=r"agree in length and size.*\[5, 24, 32\], poses of 6 frames"):
        write_signals(target, mask=some_mask(5), caption=CAPTION, **options)
    with pytest.raises(ValueError, match="depth must be uint16"):
        write_signals(target, mask=some_mask(), caption=CAPTION, depth=some_mask(), **options)
    assert not list(target.parent.iterdir())
    write_signals(target, mask=some_mask(), caption=CAPTION, **options)
    with pytest.raises(FileExistsError, match="remove it"):
        write_signals(target, mask=some_mask(), caption=CAPTION, **options)
