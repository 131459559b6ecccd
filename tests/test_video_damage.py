"""Files that cannot be read are told apart, and none is read in part."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from regen_train.files import file_sha256
from regen_train.video import (
    decode_frames,
    probe_video,
    read_gray,
    read_video,
    write_gray,
    write_video,
)


def random_frames(num_frames: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames * height * width)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)


def test_missing_empty_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no video file at .*gone\.mp4"):
        read_video(tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty \(0 bytes\)"):
        probe_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video at all " * 100)
    with pytest.raises(ValueError, match="not a video that FFmpeg can open"):
        list(decode_frames(tmp_path / "text.mp4"))


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no video stream; it holds audio"):
        read_video(tmp_path / "sound.wav")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_file_cut_off_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    write_video(whole, random_frames(20, 32, 32), 10)
    data = whole.read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="cut off"):
        read_video(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_a_flipped_byte_in_a_lossless_file_is_found(tmp_path: Path, place: float) -> None:
    """FFmpeg alone would give a wrong mask and say nothing."""
    write_gray(tmp_path / "gray.mkv", random_frames(4, 64, 64)[..., 0], 5)
    data = bytearray((tmp_path / "gray.mkv").read_bytes())
    data[int(place * len(data))] ^= 0x10
    (tmp_path / "gray.mkv").write_bytes(data)
    with pytest.raises(ValueError, match="damaged at frame"):
        read_gray(tmp_path / "gray.mkv")


def test_a_clip_that_starts_without_its_first_picture_is_refused(tmp_path: Path) -> None:
    """As a clip does that was cut without care: nothing stands for the pictures before its next complete one."""
    write_video(tmp_path / "clip.mp4", random_frames(12, 64, 64), 10)
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[3:]:
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(ValueError, match=r"damaged at frame 0|no frame that can be decoded"):
        read_video(tmp_path / "cut.mkv")


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    parts = []
    for size in (32, 48):
        with av.open(str(tmp_path / f"{size}.h264"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height = stream.width = size
            stream.pix_fmt = "yuv420p"
            picture = np.zeros((size, size, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        parts.append((tmp_path / f"{size}.h264").read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match="changes from 32x32 to 48x48"):
        read_video(tmp_path / "both.h264")


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "mask.mkv", random_frames(2, 16, 16), 5)
    with pytest.raises(ValueError, match=r"must be ffv1 .* got h264 yuv420p"):
        read_gray(tmp_path / "mask.mkv")


def test_checksum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
