"""Before anything is encoded: which clips are fit, which windows they give, and why the others are refused."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regen_train.files import file_sha256
from regen_train.preparation.probe import Probed, split_scenes
from regen_train.preparation.settings import DatasetSettings
from regen_train.schema import Bucket
from regen_train.shards import fingerprint_of
from regen_train.signals import load_signals
from regen_train.video import ResamplePlan, plan_resample, read_times, trim_length

SIGNAL_FILES = frozenset({"mask.mkv", "pose.safetensors", "depth.mkv", "caption.txt", "signals.json"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"})
_NOTABLE_CROP = 0.8  # share of the picture below which a crop is worth a word


@dataclass(frozen=True)
class ClipPlan:
    """A clip that is fit, and what will be cut from it.

    Args:
        path: The video file.
        signals: Its signals' folder.
        source_sha256: The video file's hash.
        signals_sha256: A hash over the signals' files.
        caption: What the clip shows.
        size: Height and width of the source, upright.
        bucket: The shape of every window.
        windows: For each window, the source frame of each of its frames.
        has_depth: Whether the signals hold depth.
        cuts: Frames at which a new scene begins.
        notes: What a person should know, such as frames left over.
    """

    path: Path
    signals: Path
    source_sha256: str
    signals_sha256: str
    caption: str
    size: tuple[int, int]
    bucket: Bucket
    windows: tuple[tuple[int, ...], ...]
    has_depth: bool
    cuts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a clip.

    Args:
        clip: The file's name; for the person at the screen, never written into the dataset.
        used: Whether it gave samples.
        reason: Why not, or what it gave.
        state: In a word: used, part (of its windows), review, rejected, or REFUSED before anything was made of it.
    """

    clip: str
    used: bool
    reason: str
    state: str = ""

    def __post_init__(self) -> None:
        if not self.state:
            object.__setattr__(self, "state", "used" if self.used else "REFUSED")


def find_clips(folder: Path) -> list[Path]:
    """Return the video files of a folder, by name.

    Raises:
        FileNotFoundError: The folder does not exist or holds no video.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of clips does not exist: {folder}")
    clips = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not clips:
        raise FileNotFoundError(f"{folder} holds no video file ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return clips


def survey_clip(
    clip: Path,
    signals: Path,
    settings: DatasetSettings,
    *,
    temporal_factor: int,
    probed: Probed | None = None,
    caption: str | None = None,
) -> ClipPlan:
    """Plan one clip.

    Args:
        clip: The video file.
        signals: The folder of its signals.
        settings: What the samples must be.
        temporal_factor: Pixel frames per latent frame of the VAE.
        probed: What the first stage found; None looks at the file anew, and knows no scenes.
        caption: In place of the signals' own, which then need not be there.

    Raises:
        ValueError: The clip is too slow or too short, or its signals do not fit it.
        FileNotFoundError: It has no signals.
    """
    sha256 = None if probed is None else probed.sha256
    found = load_signals(signals, clip=clip, clip_sha256=sha256, indices=[0], caption=caption)
    size = found.mask.shape[1], found.mask.shape[2]
    resampled = plan_resample(read_times(clip, max_frames=found.num_frames), settings.fps)
    scenes = split_scenes(resampled.indices.tolist(), () if probed is None else probed.cuts)
    longest = max(map(len, scenes))
    length = min(trim_length(longest, temporal_factor), settings.num_frames)
    faults = _clip_faults(resampled, length, settings, scenes=len(scenes))
    if faults:
        raise ValueError("; ".join(faults))
    windows = [tuple(scene[start : start + length]) for scene in scenes for start in _starts(len(scene), length)]
    windows = windows[: settings.max_windows_per_clip]
    height, width = closest_size(size, settings.sizes)
    left = len(resampled.indices) - len(windows) * length
    return ClipPlan(
        path=clip,
        signals=signals,
        source_sha256=found.source_sha256,
        signals_sha256=_folder_sha256(signals),
        caption=found.caption,
        size=size,
        bucket=Bucket(length, height, width),
        windows=tuple(windows),
        has_depth=found.depth is not None,
        cuts=() if probed is None else probed.cuts,
        notes=tuple(_notes(size, (height, width), left, len(scenes))),
    )


def _starts(frames: int, length: int) -> range:
    """Return where windows begin in a scene of so many frames; what is left at its end is left out."""
    return range(0, frames - length + 1, length)


def closest_size(source: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the (height, width) among ``sizes`` whose aspect ratio is closest to the source's, the first if equal."""
    ratio = math.log(source[0] / source[1])
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - ratio))


def _clip_faults(resampled: ResamplePlan, length: int, settings: DatasetSettings, *, scenes: int) -> list[str]:
    faults = []
    if resampled.is_slow and not settings.allow_slow_source:
        faults.append(
            f"runs at {resampled.source_fps or 0:.2f} fps, too slow for {settings.fps:g} fps: "
            f"{resampled.num_repeated} of {len(resampled.indices)} frames would be repeated; accept that with "
            "--allow_slow_source true, or take a lower --fps"
        )
    if length < settings.shortest:
        where = "" if scenes == 1 else f" in the longest of {scenes} scenes"
        faults.append(
            f"gives {length} frames at {settings.fps:g} fps within its signals{where}, needs {settings.shortest}; "
            f"--min_frames {length} takes it so short; else bring a longer clip, or signals for more of it"
        )
    return faults


def _folder_sha256(folder: Path) -> str:
    """Hash the files that signals consist of; the folder's own name has no part in it."""
    digests = {path.name: file_sha256(path) for path in folder.iterdir() if path.name in SIGNAL_FILES}
    return fingerprint_of(digests)


def _notes(source: tuple[int, int], size: tuple[int, int], frames_left: int, scenes: int) -> Iterable[str]:
    if scenes > 1:
        yield f"{scenes} scenes"
    if frames_left:
        yield f"{frames_left} frames left over"
    scale = max(size[0] / source[0], size[1] / source[1])
    kept = size[0] * size[1] / (source[0] * source[1] * scale**2)
    if kept < _NOTABLE_CROP:
        yield f"only {kept:.0%} of the picture is kept"
    if scale > 1:
        yield f"enlarged {scale:.2f} times"
