"""Open a dataset: read its three small files and believe none of them before it is checked."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from regen_train.schema import SCHEMA_VERSION, Bucket, Geometry
from regen_train.shards.dataset import (
    CONSTANTS_NAME,
    INDEX_NAME,
    INFO_NAME,
    Constants,
    DatasetInfo,
    dataset_fingerprint,
    decode_constants,
    parse_info_file,
)
from regen_train.shards.index import SHA256_PATTERN, SHARD_PATTERN, IndexRow, decode_index
from regen_train.shards.storage import Storage
from regen_train.shards.tensors import load_tensors
from regen_train.shards.verify import REMEDY

MAX_BYTES = {INFO_NAME: 1 << 26, INDEX_NAME: 1 << 30, CONSTANTS_NAME: 1 << 30}
KINDS = {
    "schema_version": int,
    "encoder": dict,
    "settings": dict,
    "geometry": dict,
    "buckets": dict,
    "conditions": list,
    "masked_conditions": list,
    "shards": list,
    "files": dict,
    "fingerprint": str,
}


@dataclass(frozen=True)
class Dataset:
    """An opened dataset; its shards are not opened yet.

    Args:
        storage: Where it lies.
        content: dataset.json as it was read.
        info: The same, checked.
        rows: Where every sample lies, in the order of their keys, however they were cut into shards.
        constants: What all samples share.
    """

    storage: Storage
    content: Mapping[str, Any]
    info: DatasetInfo
    rows: tuple[IndexRow, ...]
    constants: Constants

    def __len__(self) -> int:
        return len(self.rows)


def load_dataset(path: str) -> Dataset:
    """Open a dataset.

    Args:
        path: Its folder, or an address that fsspec reads.

    Raises:
        FileNotFoundError: There is no dataset.
        ValueError: It is empty, of another schema, damaged, or its files do not belong together; names every fault.
    """
    storage = Storage(str(path))
    try:
        content = _parse_json(storage.read(INFO_NAME, max_bytes=MAX_BYTES[INFO_NAME]), f"{path}/{INFO_NAME}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"there is no dataset at {path}: {INFO_NAME} is missing. Prepare one with "
            "`python -m data_prep.run --clips DIR --output DATASET`; an interrupted run continues with --resume"
        ) from error
    faults = _info_faults(content)
    if faults:
        raise ValueError(f"{path}/{INFO_NAME} cannot be used:\n  " + "\n  ".join(faults[:20]))
    info = parse_info_file(content)
    index = _read_sealed(storage, INDEX_NAME, info)
    constants = _read_sealed(storage, CONSTANTS_NAME, info)
    rows = decode_index(index, info.shards, what=f"{path}/{INDEX_NAME}")
    tensors = load_tensors(constants, what=f"{path}/{CONSTANTS_NAME}")
    dataset = Dataset(storage, content, info, tuple(sorted(rows, key=lambda row: row.key)), decode_constants(tensors))
    faults = _content_faults(dataset)
    if faults:
        raise ValueError(f"{path} cannot be used:\n  " + "\n  ".join(faults[:20]))
    return dataset


def _parse_json(data: bytes, what: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be read: {error}; {REMEDY}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what} must be a JSON object, got {type(content).__name__}; {REMEDY}")  # noqa: TRY004
    return content


def _read_sealed(storage: Storage, name: str, info: DatasetInfo) -> bytes:
    """Read a file whose SHA-256 dataset.json states."""
    try:
        data = storage.read(name, max_bytes=MAX_BYTES[name])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{storage.path}/{name} is missing; pack the dataset again") from error
    if hashlib.sha256(data).hexdigest() != info.files[name]:
        raise ValueError(
            f"{storage.path}/{name} is not the file that {INFO_NAME} was written with: "
            "packing was interrupted or the file is damaged; pack the dataset again"
        )
    return data


def _info_faults(content: Mapping[str, Any]) -> list[str]:
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        return [
            f"schema_version must be {SCHEMA_VERSION}, got {version!r}; prepare it with this version of regen_train, "
            "or train with the version that prepared it"
        ]
    faults = [
        f"{name} must be {kind.__name__}, got {content.get(name)!r:.80}"
        for name, kind in KINDS.items()
        if not isinstance(content.get(name), kind)
    ]
    if faults:
        return faults
    faults += _geometry_faults(content["geometry"]) + _shard_faults(content["shards"])
    for name in (INDEX_NAME, CONSTANTS_NAME):
        if not _is_digest(content["files"].get(name)):
            faults.append(f"files.{name} must be a SHA-256, got {content['files'].get(name)!r:.80}")
    for name, count in content["buckets"].items():
        try:
            Bucket.parse(name)
        except ValueError as error:
            faults.append(f"buckets: {error}")
        if type(count) is not int or count < 1:
            faults.append(f"buckets.{name} must be a positive number of samples, got {count!r}")
    if not content["buckets"] or not content["shards"]:
        faults.append("the dataset is empty: it has no sample")
    return faults


def _geometry_faults(geometry: Mapping[str, Any]) -> list[str]:
    names = {field.name for field in fields(Geometry)}
    if set(geometry) != names:
        return [f"geometry must have {', '.join(sorted(names))}, got {', '.join(sorted(geometry))}"]
    numbers = [value for name, value in geometry.items() if name != "patch_size"]
    patch = geometry["patch_size"]
    if not isinstance(patch, list) or len(patch) != 3:
        return [f"geometry.patch_size must be three integers, got {patch!r:.80}"]
    if any(type(value) is not int or not 0 < value < 1 << 20 for value in numbers + patch):
        return [f"geometry must be positive integers, got {dict(geometry)!r:.200}"]
    return []


def _shard_faults(shards: list[Any]) -> list[str]:
    faults = []
    seen = set()
    for number, shard in enumerate(shards):
        if not isinstance(shard, dict) or set(shard) != {"name", "size", "sha256"}:
            faults.append(f"shards[{number}] must have name, size and sha256")
            continue
        name, size = shard["name"], shard["size"]
        if not isinstance(name, str) or not SHARD_PATTERN.fullmatch(name):
            faults.append(f"shards[{number}]: {name!r:.80} is no plain tar name; nothing outside the folder is read")
        elif name in seen:
            faults.append(f"shards[{number}]: {name} stands twice")
        if type(size) is not int or size < 1 or not _is_digest(shard["sha256"]):
            faults.append(f"shards[{number}] must state its size in bytes and its SHA-256")
        seen.add(str(name))
    return faults


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and SHA256_PATTERN.fullmatch(value) is not None


def _content_faults(dataset: Dataset) -> list[str]:
    """Return where the files of a dataset contradict each other."""
    info, geometry = dataset.info, dataset.info.geometry
    faults = []
    counts = {str(bucket): count for bucket, count in Counter(row.bucket for row in dataset.rows).items()}
    if counts != dict(info.buckets):
        faults.append(f"{INFO_NAME} counts {dict(info.buckets)} samples by bucket, the index {counts}")
    if dataset_fingerprint(dataset.content, dataset.rows) != info.fingerprint:
        faults.append(
            f"the fingerprint {info.fingerprint} is not that of the dataset's content: {INFO_NAME} was edited or "
            f"belongs to another dataset; {REMEDY}"
        )
    for bucket in sorted({row.bucket for row in dataset.rows}):
        try:
            shape = geometry.latent_shape(bucket)
        except ValueError as error:
            faults.append(f"bucket {bucket}: {error}")
            continue
        inactive = dataset.constants.inactive.get(bucket)
        if inactive is None or tuple(inactive.shape) != shape:
            faults.append(f"{CONSTANTS_NAME} must have inactive.{bucket} of shape {list(shape)}")
    return faults + [
        f"{CONSTANTS_NAME}: a prompt must be [tokens, {geometry.text_dim}], got {list(prompt.shape)}"
        for prompt in (dataset.constants.empty_prompt, dataset.constants.negative_prompt)
        if prompt.ndim != 2 or prompt.shape[1] != geometry.text_dim
    ]
