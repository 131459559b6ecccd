"""The work folder: encoded samples on their way into shards, so that a killed run loses nothing."""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regen_train.files import file_sha256, write_atomically
from regen_train.shards.space import needs_space

_LEFTOVERS = ".*.tmp*"


@dataclass(frozen=True)
class WorkEntry:
    """What the work folder keeps under a name.

    Args:
        payload: Tensors as a safetensors file.
        info: A JSON text that belongs to them.
    """

    payload: bytes
    info: str


@dataclass(frozen=True)
class WorkFolder:
    """Entries, each as ``NAME.safetensors`` and ``NAME.json``; both written atomically, the json last.

    The json states the fingerprint of what the entry was made from and the hash of its tensors, so an unfinished, torn
    or outdated entry counts as absent.

    Args:
        path: The folder; created when first locked.
    """

    path: Path

    @contextlib.contextmanager
    def lock(self, part: str | None = None) -> Iterator[None]:
        """Keep other processes out for the duration, and remove what a killed one left half written.

        Args:
            part: The part of a job array that works here beside the others; None keeps everybody out of the whole.

        Raises:
            ValueError: Another process is at work here.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)  # it is as private as the clips
        with contextlib.ExitStack() as locks:
            _lock(locks, self.path / "lock", fcntl.LOCK_EX if part is None else fcntl.LOCK_SH)
            if part is None:
                for leftover in (*self.path.glob(_LEFTOVERS), *self.path.glob(f"*/{_LEFTOVERS}")):
                    leftover.unlink()
            else:
                # Others write here too: what they have half written is not to be touched.
                _lock(locks, self.path / f"lock-{part.replace('/', '-of-')}", fcntl.LOCK_EX)
            yield

    def holds(self, name: str, fingerprint: str) -> bool:
        """Return whether an entry is there, whole, and made from what ``fingerprint`` stands for."""
        return self._record(name, fingerprint) is not None

    def stated(self, name: str, fingerprint: str) -> dict[str, Any] | None:
        """Return what an entry's own JSON text says; None if it is not held."""
        record = self._record(name, fingerprint)
        return None if record is None else dict(json.loads(record["info"]))

    def write(self, name: str, entry: WorkEntry, *, fingerprint: str) -> None:
        """Write an entry; a kill at any moment leaves the old one, the new one, or one that counts as absent.

        Raises:
            OSError: It cannot be written, such as on a full disk, which names the file.
        """
        digest = hashlib.sha256(entry.payload).hexdigest()
        record = {"fingerprint": fingerprint, "sha256": digest, "info": entry.info}
        for path, data in (
            (self.path / f"{name}.safetensors", entry.payload),
            (self.path / f"{name}.json", json_bytes(record)),
        ):
            with needs_space(path):
                write_atomically(path, data)

    def read(self, name: str, *, fingerprint: str) -> WorkEntry:
        """Return an entry.

        Raises:
            ValueError: It is missing, torn or outdated.
        """
        record = self._record(name, fingerprint)
        if record is None:
            raise ValueError(
                f"{self.path / name}: missing, torn or made with other settings; run data_prep.encode again"
            )
        return WorkEntry((self.path / f"{name}.safetensors").read_bytes(), record["info"])

    def _record(self, name: str, fingerprint: str) -> dict[str, Any] | None:
        record, path = read_json(self.path / f"{name}.json"), self.path / f"{name}.safetensors"
        if record is None or record.get("fingerprint") != fingerprint or not path.is_file():
            return None
        return record if file_sha256(path) == record.get("sha256") else None


def _lock(locks: contextlib.ExitStack, path: Path, kind: int) -> None:
    file = locks.enter_context(path.open("w"))
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process is preparing in {path.parent}; wait for it or stop it") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def json_bytes(value: Any) -> bytes:
    """Return the one JSON text of a value: keys sorted, so that equal values are equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
