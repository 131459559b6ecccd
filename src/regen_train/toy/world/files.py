"""Write a world to disk as anybody's clips: video files, and a folder of signals for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regen_train.files import file_sha256
from regen_train.signals import write_signals
from regen_train.toy.world.render import WorldClip, render
from regen_train.toy.world.story import DEFAULT_FORMAT, DEFAULT_OPTIONS, ClipFormat, WorldOptions, draw_clip
from regen_train.video import write_video

WorldCodec = Literal["ffv1", "h264"]


@dataclass(frozen=True)
class WorldFiles:
    """A clip on disk.

    Args:
        video: The video file.
        signals: The folder of its signals.
        identities: Names of the identities of its people.
    """

    video: Path
    signals: Path
    identities: tuple[str, ...]


def write_world(
    folder: str | Path,
    *,
    count: int,
    seed: int = 0,
    form: ClipFormat = DEFAULT_FORMAT,
    options: WorldOptions = DEFAULT_OPTIONS,
    codec: WorldCodec = "ffv1",
) -> list[WorldFiles]:
    """Write clips and their signals; same arguments and library versions, same bytes.

    Args:
        folder: Gets ``clip-00000.mkv`` and so on, and ``signals/clip-00000/`` and so on.
        count: How many.
        seed: Of people, motions and rooms.
        form: Length, size and rate of all clips.
        options: What they show.
        codec: ``ffv1`` keeps every bit, so that signals stay exact; ``h264`` blurs edges as real video does, in .mp4.

    Raises:
        ValueError: ``count`` is not positive, or the codec unknown.
        FileExistsError: A folder of signals is there already.
    """
    if count < 1 or codec not in ("ffv1", "h264"):
        raise ValueError(f"count must be at least 1 and codec ffv1 or h264, got {count} and {codec!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clips = (render(draw_clip(seed, number, form, options)) for number in range(count))
    return [write_clip(folder, f"clip-{number:05d}", clip, codec=codec) for number, clip in enumerate(clips)]


def write_clip(folder: Path, name: str, clip: WorldClip, *, codec: WorldCodec = "ffv1") -> WorldFiles:
    """Write one clip and its signals.

    Args:
        folder: Gets the video file and, under ``signals/``, the folder.
        name: Of both.
        clip: What to write.
        codec: See `write_world`.
    """
    video, signals = folder / f"{name}.{'mkv' if codec == 'ffv1' else 'mp4'}", folder / "signals" / name
    write_video(video, clip.frames, clip.spec.fps, codec=codec, crf=14)
    exact = {"extractor": "regen_train toy world, exact", "version": "1"}
    write_signals(
        signals,
        mask=clip.mask,
        people=clip.poses,
        caption=clip.caption,
        source_sha256=file_sha256(video),
        depth=clip.depth,
        meta={**dict.fromkeys(("mask", "pose", "depth", "caption"), exact), "identities": list(clip.identities)},
    )
    return WorldFiles(video, signals, clip.identities)
