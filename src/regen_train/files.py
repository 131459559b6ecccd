"""Whole files or none, and their checksums."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; move it there, synced to the disk, if all went well.

    The temporary name keeps the ending, from which a muxer knows its container. After an error nothing is left and an
    older file at ``path`` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Bring a file, or the renames inside a folder, to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in pieces.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
