"""How samples and what they share are named in a dataset and in the work folder."""

from pathlib import Path

from regen_train.preparation.extract import FILES
from regen_train.preparation.salt import salted
from regen_train.schema import Bucket
from regen_train.signals import meta as metas

_SOURCE_DIGITS = 24


def sample_key(salt: bytes, source_sha256: str, window: int) -> str:
    """Return the key of a window; by its first part `regen_train.data.opened.clip_of` knows the clip.

    Args:
        salt: The secret that keeps keys from being matched to files.
        source_sha256: Checksum of the clip.
        window: Number of the window in the clip, from 0.
    """
    return f"{clip_key(salt, source_sha256)}-{window:04d}"


def clip_key(salt: bytes, source_sha256: str) -> str:
    """Return what the keys of all windows of a clip begin with."""
    return salted(salt, "source", source_sha256)[:_SOURCE_DIGITS]


def clip_of(key: str) -> str:
    """Return the part of a sample's key that names its clip."""
    return key.rpartition("-")[0]


def constants_name(bucket: Bucket) -> str:
    """Return the name, in the work folder, of what all samples of a bucket share."""
    return f"constants-{bucket}"


def signal_files(folder: Path) -> dict[str, list[int]]:
    """Return size and time of change, in nanoseconds, of each file of a signals folder: they stand for its content."""
    paths = [folder / name for name in sorted([*FILES.values(), metas.FILE])]
    stats = {path.name: path.stat() for path in paths if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
