"""dataset.json and constants.safetensors: what a dataset states about itself."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.files import write_atomically
from regen_train.schema import SCHEMA_VERSION, Bucket, Geometry
from regen_train.shards.checks import condition_names, layout_faults, masked_condition_names
from regen_train.shards.index import IndexedSample, IndexedShard, IndexRow, ShardRecord, encode_index
from regen_train.shards.space import needs_space

INFO_NAME = "dataset.json"
INDEX_NAME = "index.parquet"
CONSTANTS_NAME = "constants.safetensors"


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset states about itself.

    Args:
        schema_version: Of the samples.
        encoder: What encoded it: model, revision, hashes of the weights.
        settings: How it was prepared: fps, sizes, dilation and so on.
        geometry: How the encoder folds pixels.
        buckets: Number of samples by bucket.
        conditions: Conditions that every sample has.
        masked_conditions: Those of them with their own VACE mask.
        shards: The tars.
        files: SHA-256 of the index and of the constants.
        fingerprint: One SHA-256 over encoder, settings, constants and all samples; shards cut elsewhere keep it.
    """

    schema_version: int
    encoder: Mapping[str, Any]
    settings: Mapping[str, Any]
    geometry: Geometry
    buckets: Mapping[str, int]
    conditions: tuple[str, ...]
    masked_conditions: tuple[str, ...]
    shards: tuple[ShardRecord, ...]
    files: Mapping[str, str]
    fingerprint: str

    @property
    def num_samples(self) -> int:
        """Samples in all buckets."""
        return sum(self.buckets.values())


@dataclass(frozen=True)
class Constants:
    """Tensors that all samples of a dataset share.

    Args:
        inactive: Bucket to the inactive latents [c, f, h, w] of an all-ones VACE mask.
        empty_prompt: Embedding [l, d] of the empty prompt.
        negative_prompt: Embedding [l, d] of the negative prompt.
    """

    inactive: Mapping[Bucket, Float[Tensor, "c f h w"]]
    empty_prompt: Float[Tensor, "l d"]
    negative_prompt: Float[Tensor, "m d"]


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping of plain values, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def dataset_fingerprint(info: Mapping[str, Any], rows: Sequence[IndexRow]) -> str:
    """Return one SHA-256 over what a dataset teaches: encoder, settings, constants, keys and samples."""
    samples = sorted([row.key, row.sha256] for row in rows)
    stated = {name: info[name] for name in ("schema_version", "encoder", "settings")}
    return fingerprint_of(stated | {"constants": info["files"][CONSTANTS_NAME], "samples": samples})


def write_dataset_info(
    folder: Path,
    shards: Sequence[IndexedShard],
    *,
    encoder: Mapping[str, Any],
    settings: Mapping[str, Any],
    geometry: Geometry,
    constants: Constants,
) -> DatasetInfo:
    """Turn a folder of shards into a dataset: constants, index, and dataset.json last.

    Args:
        folder: Where the tars lie.
        shards: What `ShardWriter.close` or `build_index` returned.
        encoder: What encoded the samples; its `fingerprint_of` stands in every sample.
        settings: How they were prepared; likewise.
        geometry: How the encoder folds pixels.
        constants: What all samples share.

    Raises:
        ValueError: The samples do not belong together, or not to this encoder and these settings; names every fault.
        OSError: The disk is full; names the file.
    """
    samples = [sample for shard in shards for sample in shard.samples]
    encoder, settings = _plain(encoder), _plain(settings)
    expected = {"encoder": fingerprint_of(encoder), "settings": fingerprint_of(settings)}
    faults = _sample_faults(samples, expected, geometry)
    faults += _constant_faults(constants, {sample.row.bucket for sample in samples}, geometry)
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise ValueError(f"{folder} cannot become a dataset:\n  " + "\n  ".join(faults[:20]) + more)
    rows = [sample.row for sample in samples]
    index, stored = encode_index(rows), encode_constants(constants)
    counts = Counter(row.bucket for row in rows)
    info: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "encoder": encoder,
        "settings": settings,
        "geometry": asdict(geometry),
        "buckets": {str(bucket): counts[bucket] for bucket in sorted(counts)},
        "conditions": condition_names(samples[0].specs),
        "masked_conditions": masked_condition_names(samples[0].specs),
        "shards": [asdict(shard.record) for shard in shards],
        "files": {INDEX_NAME: _sha256(index), CONSTANTS_NAME: _sha256(stored)},
    }
    info["fingerprint"] = dataset_fingerprint(info, rows)
    sealed = json.dumps(info, indent=2).encode() + b"\n"
    for name, data in ((CONSTANTS_NAME, stored), (INDEX_NAME, index), (INFO_NAME, sealed)):
        with needs_space(folder / name):
            write_atomically(folder / name, data)
    return parse_info_file(_plain(info))


def parse_info_file(content: Mapping[str, Any]) -> DatasetInfo:
    """Build the dataclass from dataset.json's content, checked before."""
    geometry = dict(content["geometry"])
    known = {field.name: content[field.name] for field in fields(DatasetInfo)}
    known["geometry"] = Geometry(**(geometry | {"patch_size": tuple(geometry["patch_size"])}))
    known["conditions"] = tuple(content["conditions"])
    known["masked_conditions"] = tuple(content["masked_conditions"])
    known["shards"] = tuple(ShardRecord(**shard) for shard in content["shards"])
    return DatasetInfo(**known)


def encode_constants(constants: Constants) -> bytes:
    """Return ``constants.safetensors`` as bytes."""
    from safetensors.torch import save

    tensors = {f"inactive.{bucket}": latents for bucket, latents in constants.inactive.items()}
    tensors |= {"prompt.empty": constants.empty_prompt, "prompt.negative": constants.negative_prompt}
    halves = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    return bytes(save(halves))


def decode_constants(tensors: Mapping[str, Tensor]) -> Constants:
    """Build the constants from their tensors.

    Raises:
        ValueError: A tensor is missing or unknown; names each.
    """
    inactive = {name: tensor for name, tensor in tensors.items() if name.startswith("inactive.")}
    prompts = ("prompt.empty", "prompt.negative")
    faults = [f"tensor {name!r} is missing" for name in prompts if name not in tensors]
    faults += [f"tensor {name!r} is unknown" for name in tensors if name not in inactive and name not in prompts]
    if faults:
        raise ValueError(f"{CONSTANTS_NAME}: " + "; ".join(faults))
    buckets = {Bucket.parse(name.removeprefix("inactive.")): tensor for name, tensor in inactive.items()}
    return Constants(buckets, tensors["prompt.empty"], tensors["prompt.negative"])


def _sample_faults(samples: list[IndexedSample], expected: Mapping[str, str], geometry: Geometry) -> list[str]:
    if not samples:
        return ["it has no sample"]
    faults = []
    first = samples[0]
    for sample in samples:
        who = f"sample {sample.row.key!r}"
        for name, value in expected.items():
            if sample.fingerprints[name] != value:
                faults.append(f"{who} was made with another {name}; encode it again or remove it")
        names = (condition_names(sample.specs), masked_condition_names(sample.specs))
        if names != (condition_names(first.specs), masked_condition_names(first.specs)):
            faults.append(f"{who} has conditions {names[0]} (masked {names[1]}), unlike {first.row.key!r}")
        try:
            faults += [f"{who}: {fault}" for fault in layout_faults(sample.specs, sample.row.bucket, geometry)]
        except ValueError as error:
            faults.append(f"{who}: {error}")
    return faults


def _constant_faults(constants: Constants, buckets: set[Bucket], geometry: Geometry) -> list[str]:
    faults = [f"constants lack inactive latents of bucket {b}" for b in sorted(buckets - set(constants.inactive))]
    for bucket, latents in constants.inactive.items():
        if bucket in buckets and tuple(latents.shape) != geometry.latent_shape(bucket):
            faults.append(f"inactive latents of {bucket} must be {geometry.latent_shape(bucket)}, got {latents.shape}")
    for name, prompt in (("empty", constants.empty_prompt), ("negative", constants.negative_prompt)):
        if prompt.ndim != 2 or prompt.shape[1] != geometry.text_dim:
            faults.append(f"the {name} prompt must be [tokens, {geometry.text_dim}], got {list(prompt.shape)}")
    return faults


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of a mapping, so that what is written equals what is read back."""
    plain: dict[str, Any] = json.loads(json.dumps(content, sort_keys=True, allow_nan=False))
    return plain


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
