"""The stages that make signals, one kind each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from regen_train.files import file_sha256, whole_file, write_atomically
from regen_train.preparation.engines import Processed
from regen_train.preparation.storage import storing
from regen_train.shards import fingerprint_of
from regen_train.signals import CaptionSource, DepthSource, MaskSource, PoseSource
from regen_train.signals import caption as captions
from regen_train.signals import depth as depths
from regen_train.signals import mask as masks
from regen_train.signals import meta as metas
from regen_train.signals import pose as poses
from regen_train.video import write_gray

Kind = Literal["mask", "pose", "depth", "caption"]
FILES: Mapping[Kind, str] = {
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
        files: What the source reads beside the clip: path to checksum.
    """

    clip: Path
    sha256: str
    folder: Path
    max_frames: int
    files: Mapping[str, str] = field(default_factory=dict)


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
        key, path, record = self.key(job), job.folder / FILES[self.kind], record_path(job.folder, self.kind)
        if not holds_signal(job.folder, self.kind, key):
            with storing(path):
                job.folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(job.folder)
                record.unlink(missing_ok=True)
            if self.kind != "caption":
                check_origin(self.source, job)
            with storing(path, also_reads=True):
                count = _WRITERS[self.kind](path, self.source, job)
            if count is not None and count != job.max_frames:
                raise ValueError(f"the {self.kind} extractor gave {count} frames, the clip has {job.max_frames}")
            with storing(record):
                content = {"key": key, "identity": self.source.identity()}
                write_atomically(record, json.dumps(content, sort_keys=True).encode())
        return Processed(key)


def check_origin(source: Any, job: ExtractJob) -> None:
    """Refuse files made elsewhere that were made from another clip of the same name.

    Raises:
        ValueError: They were, or do not say from which.
    """
    root = getattr(source, "root", None)
    if root is None:
        return
    path = Path(root) / job.clip.stem / metas.FILE
    if not path.is_file():
        raise ValueError(f"no {path}, which says what the files beside it were made from; bring it")
    if metas.read_meta(path)["source_sha256"] != job.sha256:
        raise ValueError(f"{path.parent} was made from another file than {job.clip.name}; make it anew")


def signal_key(kind: Kind, identity: Mapping[str, Any], job: ExtractJob) -> str:
    """Return the hash of all that a signal depends on."""
    return fingerprint_of(
        {
            "source": job.sha256,
            "frames": job.max_frames,
            "kind": kind,
            "version": EXTRACTION_VERSION,
            "identity": dict(identity),
            "files": sorted(job.files.values()),
        }
    )


def files_read(kind: Kind, source: Any, clip: Path) -> dict[str, str]:
    """Return path and checksum of what a source reads beside the clip; its identity does not know them.

    Those are what lies in the ``root`` of files made elsewhere, and the mask that finds people for keypoints.
    """
    root, mask_root = getattr(source, "root", None), getattr(source, "mask_root", None)
    paths = [] if root is None else [Path(root) / clip.stem / name for name in (FILES[kind], metas.FILE)]
    paths += [] if mask_root is None else [Path(mask_root) / clip.stem / FILES["mask"]]
    return {str(path): file_sha256(path) for path in paths if path.is_file()}


def holds_signal(folder: Path, kind: Kind, key: str) -> bool:
    """Return whether a signal is there, whole and made from what ``key`` stands for."""
    record = read_record(folder, kind)
    return record is not None and record.get("key") == key and (folder / FILES[kind]).is_file()


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


_WRITERS: Mapping[Kind, Any] = {
    "mask": _write_masks,
    "pose": _write_poses,
    "depth": _write_depth,
    "caption": _write_caption,
}


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed worker left half written in a clip's folder, at which nobody else is at work."""
    for path in folder.glob(".*.tmp*"):
        path.unlink(missing_ok=True)


def record_path(folder: Path, kind: Kind) -> Path:
    """Return where is written what a signal was made from."""
    return folder / f".{kind}.json"


def read_record(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """Return what a signal was made from; None if it was not made here, or not to its end."""
    path = record_path(folder, kind)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
