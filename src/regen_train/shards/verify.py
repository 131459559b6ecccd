"""Is this shard the one the dataset states? Asked once, when a shard is first opened or enters the cache."""

import hashlib
import mmap
from collections.abc import Sequence
from typing import BinaryIO

from regen_train.shards.index import IndexRow, ShardRecord
from regen_train.shards.tar import Member, Span, list_members

REMEDY = "restore it from a copy or pack the dataset again"


def map_shard(file: BinaryIO, record: ShardRecord, where: str) -> mmap.mmap:
    """Map a shard, once its size is right.

    The mapping is copy-on-write, because PyTorch wants writable memory; nothing is ever written to it.

    Raises:
        ValueError: The shard is truncated or has grown.
    """
    size = file.seek(0, 2)
    if size != record.size:
        raise ValueError(size_fault(record, size, where))
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def size_fault(record: ShardRecord, size: int, where: str) -> str:
    """Say that a shard is not as long as the dataset states."""
    kind = "truncated" if size < record.size else "longer than it was"
    return f"{where} is {kind}: {record.size} bytes expected, got {size}; {REMEDY}"


def check_digest(mapping: mmap.mmap, record: ShardRecord, rows: Sequence[IndexRow], where: str) -> None:
    """Compare a shard with its SHA-256.

    Raises:
        ValueError: They differ; names the samples whose bytes changed.
    """
    with memoryview(mapping) as view:
        if hashlib.sha256(view).hexdigest() == record.sha256:
            return
        damaged = [
            row.key
            for row in rows
            if hashlib.sha256(view[row.offset : row.offset + row.size]).hexdigest() != row.sha256
        ]
    names = ", ".join(damaged[:20]) if damaged else "none, only bytes around them"
    raise ValueError(f"{where} is damaged: its SHA-256 is not {record.sha256} (damaged samples: {names}); {REMEDY}")


def check_members(file: BinaryIO, rows: Sequence[IndexRow], where: str) -> None:
    """Compare what lies in a shard with the index.

    Raises:
        ValueError: The tar holds something that is no sample, or the index does not describe it; names the samples.
    """
    file.seek(0)
    members = list_members(file, what=where)
    stated = {row.key: Member(Span(row.offset, row.size), Span(row.json_offset, row.json_size)) for row in rows}
    wrong = [key for key in sorted(members.keys() | stated.keys()) if members.get(key) != stated.get(key)]
    if wrong:
        raise ValueError(f"the index does not describe {where}; samples that differ: {', '.join(wrong[:20])}; {REMEDY}")
