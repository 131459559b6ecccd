"""The first stage: what a video file is, and where its scenes are cut."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from regen_train.files import file_sha256
from regen_train.guard.evidence import CONTEXT_FRAMES
from regen_train.preparation.engines import Processed
from regen_train.shards import fingerprint_of
from regen_train.video import Frame, VideoInfo, count_frames, decode_frames, probe_video

PROBE_VERSION = 2
_SCENE_WIDTH = 256
"""Pixels: scenes are told apart as well on small pictures."""

_SQUARE = 0.01
"""How far from square pixels may be: encoders round."""

_BEYOND = CONTEXT_FRAMES + 32
"""Frames: the gate looks so far beyond a window, and mends masks by a few more, which no cut may part unseen."""

_MIN_SCENE_FRAMES = 0
"""None: PySceneDetect would drop one of two cuts that are close to each other, and a window could hold both scenes."""


@dataclass(frozen=True)
class ProbeSettings:
    """What videos may be, and how scenes are cut.

    Args:
        scene_cuts: Cut clips where the scene changes, so that no sample shows two; finding that decodes every frame.
        scene_threshold: How much a frame must differ from the one before, as PySceneDetect's ContentDetector counts it
            (mean change of hue, saturation and brightness, 0 to 255); its own default.
        max_pixels: Videos with larger frames are refused: 4096x2160 by default.
        max_frames: Videos longer than this are refused: two hours at 30 fps by default.
    """

    scene_cuts: bool = True
    scene_threshold: float = 27.0
    max_pixels: int = 4096 * 2160
    max_frames: int = 216_000

    def __post_init__(self) -> None:
        faults = [f"{n} must be at least 1, got {v}" for n, v in asdict(self).items() if n != "scene_cuts" and v < 1]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class Probed:
    """What a video file is.

    Args:
        sha256: Of the file.
        num_frames: Frames that decode.
        height: Pixels, upright.
        width: Pixels, upright.
        cuts: Numbers of the frames at which a new scene begins, ascending, without 0.
    """

    sha256: str
    num_frames: int
    height: int
    width: int
    cuts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Probed":
        """Read what `dump` wrote."""
        content = json.loads(text)
        return cls(**(content | {"cuts": tuple(content["cuts"])}))

    def dump(self) -> str:
        """Return it as one JSON text."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class ProbeStage:
    """Hash a file, decode it once, find its cuts.

    Args:
        settings: Limits and thresholds.
        seconds: What is wanted of the file: if its first so many seconds hold no cut, the rest is only counted. None
            wants all.
    """

    settings: ProbeSettings
    seconds: float | None = None

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "probe"

    @property
    def uses_device(self) -> bool:
        """It holds no model."""
        return False

    def setup(self, device: str) -> None:
        """Do nothing; there are no weights."""

    def process(self, clip: Path) -> Processed:
        """Look at one file.

        Raises:
            ValueError: It is no video, damaged, or beyond the limits.
        """
        info, limit = fit_video(clip, self.settings), self.settings.max_frames
        if self._needs_cuts(clip):
            count, cuts = find_cuts(decode_frames(clip, max_frames=limit + 1), self.settings.scene_threshold)
        else:
            count, cuts = count_frames(clip, at_most=limit + 1), ()
        if count > limit:
            raise ValueError(f"more than --max_frames {limit} frames; cut the video into parts or raise the limit")
        sha256 = file_sha256(clip)
        return Processed(Probed(sha256, count, info.height, info.width, cuts), source_sha256=sha256)

    def _needs_cuts(self, clip: Path) -> bool:
        if self.seconds is None or not self.settings.scene_cuts:
            return self.settings.scene_cuts
        frames = first_seconds(decode_frames(clip, max_frames=self.settings.max_frames), self.seconds)
        return bool(find_cuts(frames, self.settings.scene_threshold)[1])


def fit_video(clip: Path, settings: ProbeSettings) -> VideoInfo:
    """Return what a file says of itself, if it is fit to be used.

    Raises:
        ValueError: It is no video, damaged at its start, too large, or its pixels are not square.
    """
    info, faults = probe_video(clip), []
    if info.height * info.width > settings.max_pixels:
        faults.append(
            f"frames of {info.height}x{info.width} have more pixels than --max_pixels {settings.max_pixels}; scale the "
            "video down or raise the limit"
        )
    if abs(info.pixel_aspect - 1) > _SQUARE:
        faults.append(
            f"pixels of {clip.name} are not square (sample aspect ratio {info.pixel_aspect}), and people would be "
            "stretched; make them square, and the signals from the new file: ffmpeg -i "
            f"{shlex.quote(clip.name)} -vf 'scale=trunc(iw*sar/2)*2:ih,setsar=1' -crf 12 square.mp4"
        )
    if faults:
        raise ValueError("; ".join(faults))
    return info


def probe_key(clip: Path, settings: ProbeSettings) -> str:
    """Return the key of a file's outcome: name, size and time of change stand for its content, as in git's index."""
    stat = clip.stat()
    known = {"name": clip.name, "size": stat.st_size, "changed": stat.st_mtime_ns, "version": PROBE_VERSION}
    return fingerprint_of(known | asdict(settings))


def find_cuts(frames: Iterable[Frame], threshold: float) -> tuple[int, tuple[int, ...]]:
    """Return how many frames there are, and at which a new scene begins; holds one frame.

    Source: PySceneDetect's ContentDetector.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    detector = ContentDetector(threshold=threshold, min_scene_len=_MIN_SCENE_FRAMES)
    count, cuts = 0, list[int]()
    for number, picture in _small(frames):
        found = detector.process_frame(FrameTimecode(number, fps=30.0), picture)
        cuts += [int(cut.frame_num) for cut in found]
        count = number + 1
    cuts += [int(cut.frame_num) for cut in detector.post_process(FrameTimecode(max(count - 1, 0), fps=30.0))]
    return count, tuple(sorted({cut for cut in cuts if 0 < cut < count}))


def first_seconds(frames: Iterable[Frame], seconds: float) -> Iterator[Frame]:
    """Yield the frames of the first so many seconds, and a few more."""
    start, more = None, _BEYOND
    for frame in frames:
        start = frame.time if start is None else start
        more -= frame.time - start > seconds
        if more < 0:
            return
        yield frame


def split_scenes(indices: Sequence[int], cuts: Sequence[int]) -> list[list[int]]:
    """Split ascending frame numbers so that no part holds frames of two scenes."""
    edges = [int(edge) for edge in np.searchsorted(np.asarray(indices), np.asarray(cuts, dtype=np.int64))]
    bounds = [0, *edges, len(indices)]
    return [list(indices[start:end]) for start, end in pairwise(bounds) if end > start]


def _small(frames: Iterable[Frame]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    for frame in frames:
        height, width = frame.rgb.shape[:2]
        scale = min(1.0, _SCENE_WIDTH / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame.rgb
        yield frame.index, np.ascontiguousarray(picture[..., ::-1])  # PySceneDetect takes BGR, as OpenCV does
