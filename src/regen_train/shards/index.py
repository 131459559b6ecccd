"""The index: where every sample lies, in which bucket it is, and what its bytes hash to."""

import hashlib
import io
import mmap
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regen_train.schema import Bucket
from regen_train.shards.checks import KEY_PATTERN, parse_info
from regen_train.shards.tar import Member, list_members
from regen_train.shards.tensors import TensorSpec, parse_header

SHARD_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\.tar")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
TEXT_COLUMNS = ("shard", "key", "sha256", "bucket")
NUMBER_COLUMNS = ("offset", "size", "json_offset", "json_size")
MAX_NAMED_FAULTS = 20


@dataclass(frozen=True)
class ShardRecord:
    """One tar of a dataset.

    Args:
        name: File name inside the dataset's folder.
        size: Bytes.
        sha256: Of the whole file.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class IndexRow:
    """Where one sample lies.

    Args:
        shard: The tar's file name.
        key: The sample's key.
        offset: First byte of its safetensors payload in the tar.
        size: Bytes of the payload.
        sha256: Of the payload.
        bucket: The clip's shape in pixels.
        json_offset: First byte of its JSON in the tar.
        json_size: Bytes of the JSON.
    """

    shard: str
    key: str
    offset: int
    size: int
    sha256: str
    bucket: Bucket
    json_offset: int
    json_size: int


@dataclass(frozen=True)
class IndexedSample:
    """What the headers of one sample say; held only while a dataset is written.

    Args:
        row: Where it lies.
        fingerprints: Encoder, settings and source that made it.
        specs: Its tensors' names, dtypes and shapes.
    """

    row: IndexRow
    fingerprints: dict[str, str]
    specs: dict[str, TensorSpec]


@dataclass(frozen=True)
class IndexedShard:
    """One tar and what lies in it.

    Args:
        record: The tar's name, size and SHA-256.
        samples: Its samples, in the order in which they lie there.
    """

    record: ShardRecord
    samples: tuple[IndexedSample, ...]


def build_index(folder: Path) -> list[IndexedShard]:
    """Read every tar of a folder, in the order of their names, and return what lies in each.

    Raises:
        FileNotFoundError: The folder has no tar.
        ValueError: A tar is damaged or holds something that is no sample, or a key stands twice; names every fault.
    """
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no .tar; write samples with ShardWriter first")
    shards, faults = [], []
    for path in paths:
        try:
            shards.append(index_shard(path))
        except ValueError as error:
            faults.append(str(error))
    faults += duplicate_faults(sample.row for shard in shards for sample in shard.samples)
    if faults:
        raise ValueError(f"{folder} cannot be indexed:\n  " + "\n  ".join(faults[:MAX_NAMED_FAULTS]))
    return shards


def index_shard(path: Path) -> IndexedShard:
    """Read one tar, check everything in it and hash it.

    Raises:
        ValueError: The tar is damaged or holds something that is no sample; names every fault.
    """
    if not SHARD_PATTERN.fullmatch(path.name):
        raise ValueError(f"a shard's name is letters, digits, _ and -, then .tar; got {path.name!r}")
    with path.open("rb") as file:
        members = list_members(file, what=path.name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping, memoryview(mapping) as view:
            samples = tuple(_index_sample(view, path.name, key, member) for key, member in members.items())
            record = ShardRecord(path.name, len(view), hashlib.sha256(view).hexdigest())
    return IndexedShard(record, samples)


def _index_sample(view: memoryview, shard: str, key: str, member: Member) -> IndexedSample:
    what = f"shard {shard}, sample {key!r}"
    info = parse_info(
        bytes(view[member.info.offset : member.info.offset + member.info.size]), key=key, what=f"{what} (json)"
    )
    with view[member.payload.offset : member.payload.offset + member.payload.size] as payload:
        specs = parse_header(payload, what=what)
        digest = hashlib.sha256(payload).hexdigest()
    row = IndexRow(
        shard=shard,
        key=key,
        offset=member.payload.offset,
        size=member.payload.size,
        sha256=digest,
        bucket=Bucket.parse(info["bucket"]),
        json_offset=member.info.offset,
        json_size=member.info.size,
    )
    return IndexedSample(row, dict(info["fingerprints"]), specs)


def encode_index(rows: Sequence[IndexRow]) -> bytes:
    """Return ``index.parquet`` as bytes; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: pa.array([str(getattr(row, name)) for row in rows]) for name in TEXT_COLUMNS}
    columns |= {name: pa.array([getattr(row, name) for row in rows], pa.int64()) for name in NUMBER_COLUMNS}
    order = ("shard", "key", "offset", "size", "sha256", "bucket", "json_offset", "json_size")
    sink = io.BytesIO()
    pq.write_table(pa.table({name: columns[name] for name in order}), sink, compression="zstd")
    return sink.getvalue()


def decode_index(data: bytes, shards: Sequence[ShardRecord], *, what: str) -> tuple[IndexRow, ...]:
    """Read ``index.parquet`` and check every row against the table of shards.

    Raises:
        ValueError: It is no index, or rows point outside a shard, name no shard of the dataset, or repeat a key.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = dict.fromkeys(TEXT_COLUMNS, pa.string()) | dict.fromkeys(NUMBER_COLUMNS, pa.int64())
    try:
        table = pq.read_table(io.BytesIO(data))
        found = {name: table.schema.field(name).type for name in table.column_names}
        wrong = [
            f"column {name!r} must be {kind} without gaps, got {found.get(name)}"
            for name, kind in types.items()
            if found.get(name) != kind or table[name].null_count
        ]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from error
    if wrong:
        raise ValueError(f"{what} is not an index: " + "; ".join(wrong))
    sizes = {record.name: record.size for record in shards}
    rows, faults = [], []
    for entry in table.select(list(types)).to_pylist():
        faults += _row_faults(entry, sizes)
        if not faults:
            rows.append(IndexRow(**(entry | {"bucket": Bucket.parse(entry["bucket"])})))
    faults += duplicate_faults(rows)
    if faults:
        more = f"\n  and {len(faults) - MAX_NAMED_FAULTS} more" if len(faults) > MAX_NAMED_FAULTS else ""
        raise ValueError(f"{what} cannot be trusted:\n  " + "\n  ".join(faults[:MAX_NAMED_FAULTS]) + more)
    return tuple(rows)


def _row_faults(entry: dict[str, Any], sizes: dict[str, int]) -> list[str]:
    who = f"sample {entry['key']!r}"
    faults = []
    if not KEY_PATTERN.fullmatch(entry["key"]):
        faults.append(f"{who}: a key is letters, digits, _ and -")
    if not SHA256_PATTERN.fullmatch(entry["sha256"]):
        faults.append(f"{who}: sha256 must be 64 hex digits, got {entry['sha256']!r}")
    try:
        Bucket.parse(entry["bucket"])
    except ValueError as error:
        faults.append(f"{who}: {error}")
    if entry["shard"] not in sizes:
        return [*faults, f"{who}: shard {entry['shard']!r} is not one of the dataset's"]
    for offset, size in (("offset", "size"), ("json_offset", "json_size")):
        start, length, total = entry[offset], entry[size], sizes[entry["shard"]]
        if start < 0 or length < 1 or start + length > total:
            faults.append(f"{who}: {offset} {start} + {size} {length} leaves shard {entry['shard']} of {total} bytes")
    return faults


def duplicate_faults(rows: Iterable[IndexRow]) -> list[str]:
    """Return the keys that stand twice, each with where."""
    first: dict[str, str] = {}
    faults = []
    for row in rows:
        if row.key in first:
            faults.append(f"sample {row.key!r} stands twice, in shard {first[row.key]} and in {row.shard}")
        first.setdefault(row.key, row.shard)
    return faults
