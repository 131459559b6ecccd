"""The stages that make signals, one kind each, and the folder in which they come together."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from regen_train.files import whole_file, write_atomically
from regen_train.preparation.engines import Processed
from regen_train.shards import fingerprint_of
from regen_train.signals import CaptionSource, DepthSource, MaskSource, PoseSource
from regen_train.signals import caption as captions
from regen_train.signals import depth as depths
from regen_train.signals import mask as masks
from regen_train.signals import meta as metas
from regen_train.signals import pose as poses
from regen_train.video import write_gray

Kind = Literal["mask", "pose", "depth", "caption"]
FILES: Mapping[str, str] = {
    "mask": masks.FILE,
    "pose": poses.FILE,
    "depth": depths.FILE,
    "caption": captions.FILE,
}
EXTRACTION_VERSION = 1
_NOMINAL_FPS = 25


@dataclass(frozen=True)
class Extractors:
    """What makes the signals that clips do not bring.

    Args:
        masks: Finds people: Sam3Masks, GroundedSam2Masks or MaskRcnnMasks. Default: from files.
        poses: Finds keypoints: DwPose or KeypointRcnn. Default: from files.
        depth: Estimates depth: DepthAnythingV2 or VideoDepthAnything. Default: from files, where there are any.
        captions: Describes clips: Qwen3VlCaptions or MetadataCaptions. Default: from files.
    """

    masks: MaskSource | None = None
    poses: PoseSource | None = None
    depth: DepthSource | None = None
    captions: CaptionSource | None = None

    def by_kind(self) -> dict[Kind, Any]:
        """Return those that are named."""
        sources: dict[Kind, Any] = {
            "mask": self.masks,
            "pose": self.poses,
            "depth": self.depth,
            "caption": self.captions,
        }
        return {kind: source for kind, source in sources.items() if source is not None}


@dataclass(frozen=True)
class ExtractJob:
    """A clip whose signal is to be made.

    Args:
        clip: The video file.
        sha256: Its checksum.
        folder: Where its signals come together.
        max_frames: How many frames; as many as signals brought from elsewhere cover.
    """

    clip: Path
    sha256: str
    folder: Path
    max_frames: int


@dataclass(frozen=True)
class ExtractStage:
    """Make one kind of signal; see `regen_train.signals`.

    Args:
        kind: Which.
        source: What makes it.
    """

    kind: Kind
    source: Any

    @property
    def name(self) -> str:
        """Name of the stage, for the ledger."""
        return self.kind

    @property
    def uses_device(self) -> bool:
        """It holds a model."""
        return True

    def setup(self, device: str) -> None:
        """Load the weights."""
        self.source.setup(device)

    def key(self, job: ExtractJob) -> str:
        """Return what the signal depends on, as one hash."""
        return signal_key(self.kind, self.source.identity(), job)

    def process(self, job: ExtractJob) -> Processed:
        """Make the signal of a clip, unless it is there; return its key."""
        key = self.key(job)
        if not holds_signal(job.folder, self.kind, key):
            job.folder.mkdir(parents=True, exist_ok=True)
            path = job.folder / FILES[self.kind]
            _record_path(job.folder, self.kind).unlink(missing_ok=True)
            count = _WRITERS[self.kind](path, self.source, job)
            if count is not None and count != job.max_frames:
                raise ValueError(f"the {self.kind} extractor gave {count} frames, the clip has {job.max_frames}")
            record = {"key": key, "identity": self.source.identity()}
            write_atomically(_record_path(job.folder, self.kind), json.dumps(record, sort_keys=True).encode())
        return Processed(key)


def signal_key(kind: Kind, identity: Mapping[str, Any], job: ExtractJob) -> str:
    """Return the hash of all that a signal depends on."""
    return fingerprint_of(
        {
            "source": job.sha256,
            "frames": job.max_frames,
            "kind": kind,
            "version": EXTRACTION_VERSION,
            "identity": dict(identity),
        }
    )


def holds_signal(folder: Path, kind: Kind, key: str) -> bool:
    """Return whether a signal is there, whole and made from what ``key`` stands for."""
    record = _read_record(folder, kind)
    return record is not None and record.get("key") == key and (folder / FILES[kind]).is_file()


def assemble(job: ExtractJob, brought: Path, extracted: Mapping[Kind, Any]) -> None:
    """Bring all signals of a clip together; the folder then equals one that a user could bring.

    Args:
        job: The clip.
        brought: Folder of what came from elsewhere; only read.
        extracted: What made the other kinds.

    Raises:
        ValueError: A signal that nothing makes is not there.
    """
    stated: dict[str, Any] = {"source_sha256": job.sha256, "num_frames": job.max_frames}
    missing = []
    for kind, name in FILES.items():
        if kind in extracted:
            record = _read_record(job.folder, cast(Kind, kind)) or {}
            stated[kind] = record.get("identity", {})
            continue
        if not (brought / name).is_file():
            missing += [] if kind == "depth" else [name]
            continue
        _bring(brought / name, job.folder / name)
        stated[kind] = {"extractor": "files"}
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: not in {brought}, and nothing was named to make it; bring it, or name an extractor "
            "(--masks, --poses, --captions)"
        )
    path = job.folder / metas.FILE
    text = json.dumps(stated, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text.encode())


def _bring(source: Path, target: Path) -> None:
    """Copy a file with its time of change, unless that was done: by size and time later stages know it is the same."""
    stat = source.stat()
    if target.is_file() and (target.stat().st_size, target.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
        os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def covered_frames(brought: Path, num_frames: int) -> int:
    """Return how many frames of a clip its signals shall cover: all, or as many as those brought cover."""
    path = brought / metas.FILE
    return min(int(metas.read_meta(path)["num_frames"]), num_frames) if path.is_file() else num_frames


def _frames(windows: Iterator[Tensor]) -> Iterator[Tensor]:
    for window in windows:
        yield from window


def _write_masks(path: Path, source: MaskSource, job: ExtractJob) -> int:
    return write_gray(path, _frames(source.masks(job.clip, max_frames=job.max_frames)), _NOMINAL_FPS)


def _write_poses(path: Path, source: PoseSource, job: ExtractJob) -> int:
    people = poses.join_poses(source.poses(job.clip, max_frames=job.max_frames))
    with whole_file(path) as temporary:
        poses.write_poses(temporary, people)
    return len(people)


def _write_depth(path: Path, source: DepthSource, job: ExtractJob) -> int:
    return depths.write_depth_stream(path, source.depth(job.clip, max_frames=job.max_frames), _NOMINAL_FPS)


def _write_caption(path: Path, source: CaptionSource, job: ExtractJob) -> None:
    with whole_file(path) as temporary:
        captions.write_caption(temporary, source.caption(job.clip, max_frames=job.max_frames))


_WRITERS: Mapping[str, Any] = {
    "mask": _write_masks,
    "pose": _write_poses,
    "depth": _write_depth,
    "caption": _write_caption,
}


def _record_path(folder: Path, kind: str) -> Path:
    return folder / f".{kind}.json"


def _read_record(folder: Path, kind: Kind) -> dict[str, Any] | None:
    path = _record_path(folder, kind)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
