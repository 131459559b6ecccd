"""How samples and what they share are named in a dataset and in the work folder."""

from regen_train.preparation.salt import salted
from regen_train.schema import Bucket

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


def constants_name(bucket: Bucket) -> str:
    """Return the name, in the work folder, of what all samples of a bucket share."""
    return f"constants-{bucket}"
