"""Keep shards of a remote dataset on this machine: verified, bounded, shared by its processes."""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from regen_train.files import sync
from regen_train.shards.index import IndexRow, ShardRecord
from regen_train.shards.storage import Storage
from regen_train.shards.verify import REMEDY, check_digest, map_shard, size_fault

CHUNK_BYTES = 1 << 22
RETRY_SECONDS = (1.0, 5.0)
WAIT_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheSpec:
    """Where shards of a remote dataset are kept.

    Args:
        folder: On a local disk; null for a folder of the user inside the system's temporary one. Processes of one
            machine, and runs on several datasets, may share it.
        gigabytes: How much it may hold. The shard used longest ago goes first, and never one that is in use.
    """

    folder: str | None = None
    gigabytes: float = 200.0

    def __post_init__(self) -> None:
        if self.gigabytes <= 0:
            raise ValueError(f"gigabytes must be positive, got {self.gigabytes}")


class ShardCache:
    """Verified local copies of a remote dataset's shards.

    A copy is named by its SHA-256. It carries a shared lock while a process has it mapped, and whoever makes room
    needs the exclusive one: so what is in use is never evicted.

    Args:
        storage: Where the dataset lies.
        spec: Where copies are kept.
    """

    def __init__(self, storage: Storage, spec: CacheSpec) -> None:
        default = Path(tempfile.gettempdir()) / f"regen_train-shards-{os.getuid()}"
        self.storage = storage
        self.folder = Path(spec.folder) if spec.folder else default
        self.max_bytes = int(spec.gigabytes * 1e9)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_uid != os.getuid():
            raise ValueError(
                f"the cache {self.folder} belongs to another user, who could change its shards; name one of your own"
            )

    def open(self, record: ShardRecord, rows: Sequence[IndexRow]) -> BinaryIO:
        """Return the local copy, downloading it first if need be; it is kept while the file, or a mapping of it, lives.

        Args:
            record: The shard.
            rows: Its samples, to name the damaged ones.

        Raises:
            FileNotFoundError: The shard is missing.
            ValueError: It is damaged, or does not fit into the cache; says which.
        """
        if record.size > self.max_bytes:
            raise ValueError(
                f"shard {record.name} has {record.size} bytes, the cache only {self.max_bytes}; raise its gigabytes"
            )
        path = self.folder / f"{record.sha256}.tar"
        while True:
            file = self._open_copy(path, record)
            if file is not None:
                return file
            with _locked(self.folder / f"{record.sha256}.lock"):
                if not path.exists():
                    self._download(path, record, rows)

    def _open_copy(self, path: Path, record: ShardRecord) -> BinaryIO | None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        status = os.fstat(file.fileno())
        # Evicted between open and lock, or cut short by someone else: download again.
        if status.st_nlink == 0 or status.st_size != record.size:
            file.close()
            if status.st_nlink:
                path.unlink(missing_ok=True)
            return None
        os.utime(path)
        return file

    def _download(self, path: Path, record: ShardRecord, rows: Sequence[IndexRow]) -> None:
        partial = path.with_suffix(".part")
        partial.unlink(missing_ok=True)  # of a process that was killed
        self._reserve(partial, record.size)
        try:
            self._fetch(partial, record, rows)
            with _locked(self.folder / "cache.lock"):  # who counts the copies meanwhile would miss it under both names
                partial.replace(path)
            sync(self.folder)
        finally:
            partial.unlink(missing_ok=True)

    def _fetch(self, partial: Path, record: ShardRecord, rows: Sequence[IndexRow]) -> None:
        """Copy and verify, again if the connection fails."""
        where = f"{self.storage.path}/{record.name}"
        for seconds in (*RETRY_SECONDS, None):
            try:
                self._copy(partial, record, where)
                with partial.open("rb") as file, map_shard(file, record, where) as mapping:
                    check_digest(mapping, record, rows, where)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"shard {record.name} is missing from {self.storage.path}; {REMEDY}") from error
            except Exception as error:
                if seconds is None:
                    raise
                log.warning("%s could not be downloaded (%s); trying again in %.0f s", where, error, seconds)
                time.sleep(seconds)
            else:
                return

    def _copy(self, partial: Path, record: ShardRecord, where: str) -> None:
        size = 0
        with self.storage.open(record.name) as source, partial.open("r+b") as target:
            while chunk := source.read(CHUNK_BYTES):
                size += len(chunk)
                if size > record.size:
                    break
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if size != record.size:
            raise ValueError(size_fault(record, size, where))

    def _reserve(self, partial: Path, num_bytes: int) -> None:
        """Make room, and hold it with a sparse file of the final size."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with _locked(self.folder / "cache.lock"):
                if self._evict(num_bytes):
                    with partial.open("wb") as file:
                        file.truncate(num_bytes)
                    return
            if time.monotonic() > deadline:
                raise ValueError(
                    f"the cache {self.folder} may hold {self.max_bytes} bytes and all of it has been in use for "
                    f"{WAIT_SECONDS:.0f} s; another {num_bytes} are needed: raise its gigabytes or make smaller shards"
                )
            time.sleep(0.05)

    def _evict(self, needed: int) -> bool:
        """Remove copies, the one used longest ago first, until there is room; tell whether there is."""
        copies = []
        used = 0
        for path in (*self.folder.glob("*.part"), *self.folder.glob("*.tar")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                used += status.st_size
                copies.append((status.st_mtime, path, status.st_size))
        for _, path, size in sorted(copies):
            if used + needed <= self.max_bytes:
                break
            if _remove_unused(path):
                used -= size
        return used + needed <= self.max_bytes


def _remove_unused(path: Path) -> bool:
    """Remove a copy nobody has open, or what a killed download left."""
    guard = path if path.suffix == ".tar" else path.with_suffix(".lock")
    with contextlib.suppress(FileNotFoundError, BlockingIOError), guard.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
