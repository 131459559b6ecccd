"""The work folder: encoded samples on their way into shards, so that a killed run loses nothing."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class WorkFolder:
    """Tensors with a record each, ``NAME.safetensors`` and ``NAME.json``; both written atomically, the record last.

    The record states the fingerprint of what the tensors were made from and their file's hash, so an unfinished, torn
    or outdated entry counts as absent.

    Args:
        path: The folder; created when first locked.
    """

    path: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out for the duration, and remove what a killed one left half written.

        Raises:
            ValueError: Another process is at work here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another process is preparing in {self.path}; wait for it or stop it") from None
            for leftover in self.path.glob(f"{_TEMPORARY}*"):
                leftover.unlink()
            yield

    def tensors_file(self, name: str) -> Path:
        """Return where the tensors of an entry lie."""
        return self.path / f"{name}.safetensors"

    def record(self, name: str) -> Mapping[str, Any] | None:
        """Return an entry's record, None if it is missing or unreadable."""
        try:
            record = json.loads((self.path / f"{name}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def holds(self, name: str, fingerprint: str) -> bool:
        """Return whether an entry is there, whole, and made from what ``fingerprint`` stands for."""
        record = self.record(name)
        path = self.tensors_file(name)
        if record is None or record.get("fingerprint") != fingerprint or not path.is_file():
            return False
        return bool(file_hash(path) == record.get("sha256"))

    def write(self, name: str, tensors: Mapping[str, Tensor], *, info: Mapping[str, Any], fingerprint: str) -> None:
        """Write an entry; a kill at any moment leaves the old entry, the new one, or one that counts as absent."""
        data = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        write_atomically(self.tensors_file(name), data)
        record = {"fingerprint": fingerprint, "sha256": hashlib.sha256(data).hexdigest(), "info": dict(info)}
        write_atomically(self.path / f"{name}.json", json_bytes(record))


def json_bytes(value: Any) -> bytes:
    """Return the one JSON text of a value: keys sorted, so that equal values are equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def fingerprint_of(value: Any) -> str:
    """Return the SHA-256 of a plain value."""
    return hashlib.sha256(json_bytes(value)).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all, also after a power cut."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
