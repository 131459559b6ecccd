"""Write samples into WebDataset tars."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from regen_train.files import sync
from regen_train.schema import Sample
from regen_train.shards.dataset import INFO_NAME
from regen_train.shards.index import IndexedShard, duplicate_faults, index_shard
from regen_train.shards.sample import EncodedSample, encode_sample
from regen_train.shards.space import needs_space

WRITE_BYTES = 1 << 24


class ShardWriter:
    """Write samples into tars that are whole or not there, and the same bytes for the same samples.

    Use it as a context manager, or call `close`; only then is the last shard written.

    Args:
        folder: Where the tars go; made if missing.
        max_shard_bytes: A shard ends before the sample that would make its payload larger.
        max_samples: A shard ends after so many samples.
        replace: Remove the dataset that lies there; else a folder that has tars is refused.

    Raises:
        FileExistsError: The folder has tars, and ``replace`` is not given.
    """

    def __init__(
        self, folder: Path, *, max_shard_bytes: int = 1 << 30, max_samples: int = 10_000, replace: bool = False
    ) -> None:
        if max_shard_bytes < 1 or max_samples < 1:
            raise ValueError(f"max_shard_bytes and max_samples must be positive, got {max_shard_bytes}, {max_samples}")
        self.folder = folder
        self.max_shard_bytes = max_shard_bytes
        self.max_samples = max_samples
        self.shards: list[IndexedShard] = []
        self._open: _OpenShard | None = None
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, replace=replace)

    def write(self, sample: Sample | EncodedSample) -> None:
        """Add a sample.

        Raises:
            ValueError: The sample cannot be stored; names each fault.
            OSError: The disk is full; names the shard.
        """
        encoded = encode_sample(sample) if isinstance(sample, Sample) else sample
        num_bytes = len(encoded.payload) + len(encoded.info)
        shard = self._open
        if shard and (shard.num_samples >= self.max_samples or shard.num_bytes + num_bytes > self.max_shard_bytes):
            self._finish(shard)
            shard = None
        shard = shard or self._start()
        with needs_space(shard.target):
            shard.tar.write({"__key__": encoded.key, "safetensors": encoded.payload, "json": encoded.info})
        shard.num_samples += 1
        shard.num_bytes += num_bytes

    def close(self) -> list[IndexedShard]:
        """Write the last shard and return all of them, for `write_dataset_info`.

        Raises:
            ValueError: A shard, read back, holds something that is no sample, or a key stands twice.
            OSError: The disk is full; names the shard.
        """
        if self._open:
            self._finish(self._open)
        faults = duplicate_faults(sample.row for shard in self.shards for sample in shard.samples)
        if faults:
            raise ValueError(f"{self.folder}: " + "; ".join(faults[:20]))
        return self.shards

    def abandon(self) -> None:
        """Drop the shard that is being written; those before it stay."""
        if self._open:
            for file in (self._open.tar, self._open.file):
                with contextlib.suppress(OSError):  # such as the full disk that made us abandon it
                    file.close()
            self._open.path.unlink(missing_ok=True)
        self._open = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _start(self) -> "_OpenShard":
        from webdataset import TarWriter

        name = f"shard-{len(self.shards):06d}"
        path = self.folder / f".{name}.{os.getpid()}.tmp"
        file = path.open("wb", buffering=WRITE_BYTES)  # webdataset writes 10 kB at a time
        # Fixed owner, mode and time: the same samples must give the same bytes.
        tar = TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False)
        self._open = _OpenShard(path, self.folder / f"{name}.tar", file, tar)
        return self._open

    def _finish(self, shard: "_OpenShard") -> None:
        with needs_space(shard.target):
            shard.tar.close()
            shard.file.flush()
            os.fsync(shard.file.fileno())
            shard.file.close()
        shard.path.replace(shard.target)
        sync(self.folder)
        self._open = None
        self.shards.append(index_shard(shard.target))


@dataclass
class _OpenShard:
    path: Path
    target: Path
    file: BinaryIO
    tar: Any
    num_samples: int = 0
    num_bytes: int = 0


def _make_room(folder: Path, *, replace: bool) -> None:
    tars = sorted(folder.glob("*.tar"))
    if tars and not replace:
        raise FileExistsError(f"{folder} already holds {len(tars)} tars; write elsewhere or pass replace=True")
    # dataset.json goes first: a folder without it is no dataset, so no reader sees old and new shards mixed.
    for path in (folder / INFO_NAME, *tars, *folder.glob(".shard-*.tmp")):
        path.unlink(missing_ok=True)
