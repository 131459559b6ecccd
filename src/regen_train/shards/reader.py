"""Read samples in any order: mapped shards, zero-copy tensors, each shard verified once."""

import mmap
import threading
from collections import OrderedDict, defaultdict
from typing import BinaryIO

from torch import Tensor

from regen_train.schema import Sample
from regen_train.shards.cache import CacheSpec, ShardCache
from regen_train.shards.checks import checked_layout, parse_info
from regen_train.shards.index import IndexRow
from regen_train.shards.loading import Dataset, load_dataset
from regen_train.shards.sample import build_sample
from regen_train.shards.tensors import read_header, view_tensors
from regen_train.shards.verify import REMEDY, check_digest, check_members, map_shard

MAX_OPEN_SHARDS = 256


class ShardReader:
    """Random access to the samples of a dataset; safe to use from many threads.

    Samples are numbered in the order of their keys, whatever shards they lie in. The tensors of a sample share the
    memory of its mapped shard: they cost nothing until they are read and stay valid as long as they are held.

    Args:
        dataset: An opened dataset, or the path of one.
        cache: Where shards of a remote dataset are kept.
    """

    def __init__(self, dataset: Dataset | str, *, cache: CacheSpec | None = None) -> None:
        self.dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
        storage = self.dataset.storage
        self._cache = ShardCache(storage, cache or CacheSpec()) if storage.is_remote else None
        self._records = {record.name: record for record in self.dataset.info.shards}
        self._rows: dict[str, list[IndexRow]] = defaultdict(list)
        for row in self.dataset.rows:
            self._rows[row.shard].append(row)
        self._open: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._locks = {name: threading.Lock() for name in self._records}
        self._verified: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, number: int) -> Sample:
        """Return a sample; its tensors are views of the mapped shard.

        Raises:
            FileNotFoundError: Its shard is missing.
            ValueError: Its shard or the sample is damaged; names what and where.
        """
        row = self.dataset.rows[number]
        mapping = self._mapping(row.shard)
        info = parse_info(mapping[row.json_offset : row.json_offset + row.json_size], key=row.key, what=self._name(row))
        if info["bucket"] != str(row.bucket):
            raise ValueError(f"{self._name(row)}: the index says bucket {row.bucket}, its json {info['bucket']}")
        return build_sample(self._tensors(mapping, row), info, self.dataset.info.geometry)

    def read_tensors(self, number: int) -> dict[str, Tensor]:
        """Return only the tensors of a sample, as they are stored; otherwise like `read`."""
        row = self.dataset.rows[number]
        return self._tensors(self._mapping(row.shard), row)

    def close(self) -> None:
        """Let go of the mapped shards; tensors in use keep theirs."""
        with self._lock:
            self._open.clear()

    def _tensors(self, mapping: mmap.mmap, row: IndexRow) -> dict[str, Tensor]:
        with memoryview(mapping) as view, view[row.offset : row.offset + row.size] as payload:
            header = read_header(payload, what=self._name(row))
        try:
            specs = checked_layout(header, row.size, row.bucket, self.dataset.info.geometry)
        except ValueError as error:
            raise ValueError(f"{self._name(row)}: {error}") from error
        return view_tensors(mapping, row.offset, specs)

    def _name(self, row: IndexRow) -> str:
        return f"sample {row.key!r} in {self.dataset.storage.path}/{row.shard}"

    def _mapping(self, name: str) -> mmap.mmap:
        """Return the mapped shard, verifying it the first time."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
        with self._locks[name]:
            with self._lock:
                if name in self._open:
                    return self._open[name]
            mapping = self._open_shard(name)
            if self._cache is None:
                # A cached shard is not held: it stays locked against eviction while mapped.
                with self._lock:
                    self._open[name] = mapping
                    while len(self._open) > MAX_OPEN_SHARDS:
                        self._open.popitem(last=False)
            return mapping

    def _open_shard(self, name: str) -> mmap.mmap:
        record = self._records[name]
        if self._cache is None:
            try:
                file: BinaryIO = self.dataset.storage.local_path(name).open("rb")
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"shard {name} is missing from {self.dataset.storage.path}; {REMEDY}"
                ) from error
        else:
            file = self._cache.open(record, self._rows[name])
        with file:
            where = f"{self.dataset.storage.path}/{name}"
            mapping = map_shard(file, record, where)
            if name not in self._verified:
                if self._cache is None:
                    check_digest(mapping, record, self._rows[name], where)
                check_members(file, self._rows[name], where)
                self._verified.add(name)
        return mapping
