"""Writing video files."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.video import (
    read_gray,
    read_video,
    write_gray,
    write_video,
)


def random_frames(num_frames: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames * height * width)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)


@settings(max_examples=8, deadline=None)
@given(num_frames=st.integers(1, 4), height=st.integers(2, 40), width=st.integers(2, 40))
def test_ffv1_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory, num_frames: int, height: int, width: int
) -> None:
    path = tmp_path_factory.mktemp("lossless") / "clip.mkv"
    frames = random_frames(num_frames, height, width)
    assert write_video(path, frames, 7.5, codec="ffv1") == num_frames
    video = read_video(path)
    assert torch.equal(video.frames, frames)
    assert torch.allclose(video.times, torch.arange(num_frames, dtype=torch.float64) / 7.5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_gray_keeps_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    frames = torch.randint(0, 65536 if dtype == torch.uint16 else 256, (5, 33, 47)).to(dtype)
    assert write_gray(tmp_path / "gray.mkv", frames, 30) == 5
    assert torch.equal(read_gray(tmp_path / "gray.mkv"), frames)
    assert torch.equal(read_gray(tmp_path / "gray.mkv", indices=[4, 0, 0]), torch.stack([frames[i] for i in (4, 0, 0)]))
    with pytest.raises(ValueError, match="has 5 frames, it should have 6"):
        read_gray(tmp_path / "gray.mkv", num_frames=6)
    with pytest.raises(ValueError, match="more than the 4 frames"):
        read_gray(tmp_path / "gray.mkv", num_frames=4)
    with pytest.raises(ValueError, match="asked for numbers"):
        read_gray(tmp_path / "gray.mkv", indices=[5])


@pytest.mark.parametrize("size", [(64, 96), (720, 64)])
def test_h264_keeps_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [250, 200, 10]], dtype=torch.uint8)
    for colour in colours:
        frames = colour.expand(2, *size, 3)
        write_video(tmp_path / "clip.mp4", frames, 16)
        assert (read_video(tmp_path / "clip.mp4").frames.int() - frames.int()).abs().max() <= 4


def test_h264_carries_no_sound_and_no_metadata(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", random_frames(3, 32, 32), 30000 / 1001)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands"}
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_frames_may_come_one_by_one(tmp_path: Path) -> None:
    frames = random_frames(3, 8, 8)
    assert write_video(tmp_path / "clip.mkv", (frame for frame in frames), 5, codec="ffv1") == 3
    assert torch.equal(read_video(tmp_path / "clip.mkv").frames, frames)


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, codec: Literal["h264", "ffv1"]) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, random_frames(2, 16, 16), 5, codec=codec)
    before = path.read_bytes()

    def broken() -> Iterator[torch.Tensor]:
        yield from random_frames(2, 16, 16)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_video(path, broken(), 5, codec=codec)
    with pytest.raises(ValueError, match=r"frame 1 is .*\(18, 16, 3\)"):
        write_video(path, [random_frames(1, 16, 16)[0], random_frames(1, 18, 16)[0]], 5, codec=codec)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"end with \.mp4.*fps must be.*even height and width, got 33x46; crop to 32x46"
    ):
        write_video(tmp_path / "clip.gif", random_frames(1, 33, 46), -1)
    with pytest.raises(ValueError, match=r"end with \.mkv.*no frames"):
        write_video(tmp_path / "clip.mp4", [], 5, codec="ffv1")
    with pytest.raises(ValueError, match="uint8 or uint16, got torch"):
        write_gray(tmp_path / "gray.mkv", torch.zeros(1, 4, 4), 5)
    assert not list(tmp_path.iterdir())
