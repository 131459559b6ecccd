"""Reading video files: upright, by their own times, in their own colours."""

import logging
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from regen_train.video import (
    count_frames,
    decode_frames,
    probe_video,
    read_resampled,
    read_times,
    read_video,
    resample_indices,
    write_video,
)


def random_frames(num_frames: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames * height * width)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)


def write_planes(path: Path, planes: tuple[int, int, int], height: int, **tags: int) -> None:
    """Write a flat yuv444p picture, lossless, with the colour tags given and no others."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, 16, "yuv444p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        flat = np.broadcast_to(np.array(planes, dtype=np.uint8)[:, None, None], (3, height, 16))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(flat), format="yuv444p")))
        container.mux(stream.encode(None))


def write_timed(path: Path, milliseconds: Sequence[int], size: tuple[int, int] = (16, 32), **display: Any) -> None:
    """Write H.264 whose frames appear at given times; brightness counts the frames, the top left corner is white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if display:
            stream.set_display_rotation(display["degrees"], hflip=display.get("hflip", False))
        for number, time in enumerate(milliseconds):
            picture = np.full((*size, 3), 8 * number % 200, dtype=np.uint8)
            picture[: size[0] // 2, : size[1] // 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_timed(path, range(0, 3000, 40), size=(64, 96))
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_stand_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    write_timed(tmp_path / "clip.mp4", [0, 40], degrees=degrees, hflip=mirrored)
    coded = np.zeros((16, 32), dtype=bool)
    coded[:8, :16] = True
    expected = np.rot90(coded, degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    info, video = probe_video(tmp_path / "clip.mp4"), read_video(tmp_path / "clip.mp4")
    assert video.frames.shape[1:3] == (info.height, info.width) == expected.shape
    assert info.rotation == degrees
    assert np.array_equal(video.frames[0, :, :, 0].numpy() > 128, expected)


def test_a_slanted_picture_is_refused(tmp_path: Path) -> None:
    write_timed(tmp_path / "clip.mp4", [0], degrees=30)
    with pytest.raises(ValueError, match="only quarter turns"):
        read_video(tmp_path / "clip.mp4")


def test_a_variable_rate_is_resampled_by_its_times(tmp_path: Path) -> None:
    times = [0, 33, 66, 400, 433, 900, 1700]
    write_timed(tmp_path / "clip.mp4", times)
    assert read_times(tmp_path / "clip.mp4").tolist() == pytest.approx([time / 1000 for time in times])
    video = read_video(tmp_path / "clip.mp4", fps=10)
    assert video.indices.tolist() == resample_indices(np.array(times) / 1000, 10).tolist()
    brightness = (video.frames[:, -4:, -4:].double().mean((1, 2, 3)) / 8).round().long()
    assert torch.equal(brightness, video.indices)
    assert video.times.tolist() == pytest.approx([times[index] / 1000 for index in video.indices])
    assert [frame.index for frame in read_resampled(tmp_path / "clip.mp4", 10)] == video.indices.tolist()
    assert video.plan.is_slow


def test_a_coarse_clock_with_a_constant_rate_is_made_exact(tmp_path: Path) -> None:
    """Matroska rounds 66.67 ms to 67, which is after 66.67: at equal rates every third frame would be lost."""
    write_video(tmp_path / "clip.mkv", random_frames(31, 16, 16), 30)
    with av.open(str(tmp_path / "clip.mkv")) as container:
        raw = [frame.time for frame in container.decode(video=0)]
    assert raw[2] == pytest.approx(0.067)
    video = read_video(tmp_path / "clip.mkv", fps=30)
    assert video.indices.tolist() == list(range(31))
    assert video.times.tolist() == pytest.approx([number / 30 for number in range(31)], abs=1e-9)


def test_a_variable_rate_on_a_coarse_clock_is_left_alone(tmp_path: Path) -> None:
    times = [0, 10, 95, 100, 333]
    write_timed(tmp_path / "clip.mkv", times)
    assert read_times(tmp_path / "clip.mkv").tolist() == pytest.approx([time / 1000 for time in times], abs=5.1e-4)


def test_reading_stops_where_asked(clip: Path) -> None:
    assert len(list(decode_frames(clip, max_frames=3))) == 3
    assert read_video(clip, max_frames=7).frames.shape == (7, 64, 96, 3)
    assert read_video(clip, fps=12.5, num_frames=5).indices.tolist() == [0, 2, 4, 6, 8]
    assert count_frames(clip) == 75
    assert count_frames(clip, at_most=10) == 10
    with pytest.raises(ValueError, match=r"has 38 frames at 12\.5 fps, 39 were asked for"):
        read_video(clip, fps=12.5, num_frames=39)


def test_a_long_clip_is_read_in_bounded_memory(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mkv", random_frames(1, 96, 128).expand(300, -1, -1, -1), 30)
    picture = 96 * 128 * 3
    tracemalloc.start()
    try:
        for frame in read_resampled(tmp_path / "long.mkv", 15):
            assert frame.rgb.nbytes == picture
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * picture


def test_probe_tells_what_the_file_says(clip: Path, tmp_path: Path) -> None:
    info = probe_video(clip)
    assert (info.num_frames, info.height, info.width, info.rotation) == (75, 64, 96, 0)
    assert info.fps == pytest.approx(25, rel=0.05)
    assert info.duration == pytest.approx(3, abs=0.1)
    assert not info.has_audio
    write_video(tmp_path / "clip.mkv", random_frames(2, 8, 8), 5, codec="ffv1")
    assert probe_video(tmp_path / "clip.mkv").num_frames is None


def to_rgb(planes: tuple[int, int, int], kr: float, kb: float, *, full: bool) -> list[float]:
    """Convert by the definition of BT.601 and BT.709."""
    luma, cb, cr = planes[0] / 255, (planes[1] - 128) / 255, (planes[2] - 128) / 255
    if not full:
        luma, cb, cr = (planes[0] - 16) / 219, (planes[1] - 128) / 224, (planes[2] - 128) / 224
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return [255 * min(max(value, 0), 1) for value in (red, green, blue)]


BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


@pytest.mark.parametrize(
    ("height", "tags", "coefficients", "full"),
    [
        (64, {}, BT601, False),
        (720, {}, BT709, False),
        (64, {"colorspace": 1, "color_range": 1}, BT709, False),
        (720, {"colorspace": 5, "color_range": 1}, BT601, False),
        (64, {"colorspace": 6, "color_range": 2}, BT601, True),
        (64, {"colorspace": 9, "color_range": 1}, BT2020, False),
        (720, {"color_range": 2}, BT709, True),
    ],
)
def test_colours_follow_the_file_or_else_the_rule(
    tmp_path: Path, height: int, tags: dict[str, int], coefficients: tuple[float, float], full: bool
) -> None:
    planes = (110, 150, 100)
    write_planes(tmp_path / "clip.mkv", planes, height, **tags)
    pixel = read_video(tmp_path / "clip.mkv").frames[0, 3, 3]
    assert pixel.tolist() == pytest.approx(to_rgb(planes, *coefficients, full=full), abs=1.5)


def test_what_is_assumed_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_planes(tmp_path / "silent.mkv", (110, 150, 100), 64)
    write_planes(tmp_path / "telling.mkv", (110, 150, 100), 64, colorspace=1, color_range=1)
    with caplog.at_level(logging.INFO, logger="regen_train.video"):
        for name in ("silent.mkv", "silent.mkv", "telling.mkv"):
            read_video(tmp_path / name)
    assert len(caplog.records) == 1
    assert "silent.mkv" in caplog.text
    assert "BT.601, limited (tv) range" in caplog.text
