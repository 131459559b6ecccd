"""The first stage: scenes are cut where they change, however close, and odd files end with their reason."""

import shlex
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from moving_people import draw_people, write_people

from regen_train.preparation import probe
from regen_train.preparation.probe import (
    Probed,
    ProbeSettings,
    ProbeStage,
    find_cuts,
    first_seconds,
    split_scenes,
)
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import survey_clip
from regen_train.signals import Poses
from regen_train.video import Frame, probe_video, write_video

SETTINGS = DatasetSettings(fps=15.0, num_frames=5, sizes=((32, 48),))


def scenes(*lengths: int, height: int = 36, width: int = 64) -> Iterator[Frame]:
    """Yield still scenes of noise, one after the other."""
    generator, number = np.random.default_rng(0), 0
    for length in lengths:
        picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for _ in range(length):
            yield Frame(number, number / 30, picture)
            number += 1


@pytest.mark.parametrize("lengths", [(30, 30), (30, 7, 30), (30, 1, 30), (3, 30), (20, 3, 3, 3, 40), (30, 2)])
def test_every_cut_is_found_however_short_the_scene(lengths: tuple[int, ...]) -> None:
    """A cut that were dropped as too close to another would leave windows that show two scenes."""
    expected = tuple(int(edge) for edge in np.cumsum(lengths)[:-1])
    assert find_cuts(scenes(*lengths), 27.0) == (sum(lengths), expected)


def test_large_frames_are_cut_alike() -> None:
    assert find_cuts(scenes(10, 10, height=300, width=500), 27.0) == (20, (10,))
    assert find_cuts(scenes(20), 27.0) == (20, ())
    assert find_cuts(scenes(10, 10), 255.0) == (20, ())


def test_scenes_part_frames_that_were_picked_or_repeated() -> None:
    assert split_scenes([0, 2, 4, 6, 8], [5]) == [[0, 2, 4], [6, 8]]
    assert split_scenes([0, 2, 4, 6], [4]) == [[0, 2], [4, 6]]
    assert split_scenes([0, 0, 1, 1], [1]) == [[0, 0], [1, 1]]
    assert split_scenes([0, 3, 6], [1, 2, 6]) == [[0], [3], [6]]
    assert split_scenes([0, 1], []) == [[0, 1]]


def two_scenes(folder: Path) -> Path:
    """Write a clip of 8 and 12 frames before different walls."""
    one, other = draw_people(seed=1, num_frames=8), draw_people(seed=2, num_frames=12)
    joined = type(one)(
        frames=torch.cat([one.frames, other.frames]),
        mask=torch.cat([one.mask, other.mask]),
        poses=Poses(
            torch.cat([one.poses.keypoints, other.poses.keypoints]), torch.cat([one.poses.scores, other.poses.scores])
        ),
        depth=torch.cat([one.depth.int(), other.depth.int()]).to(torch.uint16),
    )
    return write_people(folder, "clip", joined)


def probed(clip: Path, settings: ProbeSettings | None = None) -> Probed:
    value = ProbeStage(ProbeSettings() if settings is None else settings).process(clip).value
    assert isinstance(value, Probed)
    assert Probed.parse(value.dump()) == value
    return value


def test_no_window_straddles_a_cut(tmp_path: Path) -> None:
    clip = two_scenes(tmp_path)
    signals = tmp_path / "signals" / "clip"
    plan = survey_clip(clip, signals, SETTINGS, temporal_factor=4, probed=probed(clip))
    assert plan.windows == ((0, 1, 2, 3, 4), (8, 9, 10, 11, 12), (13, 14, 15, 16, 17))
    uncut = probed(clip, ProbeSettings(scene_cuts=False))
    assert uncut.cuts == ()
    plan = survey_clip(clip, signals, SETTINGS, temporal_factor=4, probed=uncut)
    assert [window[0] for window in plan.windows] == [0, 5, 10, 15]


def test_cuts_are_sought_no_farther_than_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = two_scenes(tmp_path)  # a cut at frame 8 of 20, at 15 frames a second
    monkeypatch.setattr(probe, "_BEYOND", 1)

    def cuts(seconds: float | None) -> tuple[int, ...]:
        found = ProbeStage(ProbeSettings(), seconds).process(clip).value
        assert isinstance(found, Probed)
        assert found.num_frames == 20
        return found.cuts

    assert cuts(None) == (8,)
    assert cuts(5 / 15) == ()  # frames 0 to 6
    assert cuts(7 / 15) == (8,)  # one cut, so all of it
    assert len(list(first_seconds(scenes(90), 1.0))) == 32


def test_pixels_that_are_not_square_are_refused_with_the_command_that_mends_them(tmp_path: Path) -> None:
    for name, aspect in (("dv it's.mkv", Fraction(64, 45)), ("rounded.mkv", Fraction(160, 159)), ("silent.mkv", None)):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            container.mux(stream.encode())
    assert probe_video(tmp_path / "dv it's.mkv").pixel_aspect == Fraction(64, 45)
    assert probe_video(tmp_path / "silent.mkv").pixel_aspect == 1
    with pytest.raises(ValueError, match=r"are not square \(sample aspect ratio 64/45\)") as refused:
        probed(tmp_path / "dv it's.mkv")
    command = shlex.split(str(refused.value).split("new file: ")[1])
    assert command[:5] == ["ffmpeg", "-i", "dv it's.mkv", "-vf", "scale=trunc(iw*sar/2)*2:ih,setsar=1"]
    for name in ("rounded.mkv", "silent.mkv"):
        assert probed(tmp_path / name).num_frames == 1


def test_odd_files_end_with_their_reason(tmp_path: Path) -> None:
    def reason(clip: Path, settings: ProbeSettings | None = None) -> str:
        with pytest.raises((ValueError, OSError)) as caught:
            probed(clip, settings)
        return str(caught.value)

    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "is empty (0 bytes)" in reason(tmp_path / "empty.mp4")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    assert "is not a video" in reason(tmp_path / "noise.mp4")
    frames = torch.randint(0, 256, (30, 48, 64, 3), dtype=torch.uint8)
    clip = tmp_path / "clip.mp4"
    write_video(clip, frames, 30.0)
    assert "--max_pixels 100" in reason(clip, ProbeSettings(max_pixels=100))
    for scene_cuts in (True, False):
        assert "--max_frames 29" in reason(clip, ProbeSettings(max_frames=29, scene_cuts=scene_cuts))
        assert probed(clip, ProbeSettings(max_frames=30, scene_cuts=scene_cuts)).num_frames == 30
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert "cut off" in reason(torn)
    odd = tmp_path / "odd.mkv"
    write_video(odd, frames[:1, :47, :63], 30.0, codec="ffv1")
    assert probed(odd) == Probed(probed(odd).sha256, 1, 47, 63, ())


def test_wrong_limits_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"scene_threshold must be at least 1, got 0.0; max_pixels .*; max_frames"):
        ProbeSettings(scene_threshold=0.0, max_pixels=0, max_frames=-1)
