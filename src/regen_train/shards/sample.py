"""A sample on disk: one safetensors payload and one JSON, and back.

Tensors: ``latents``, ``human_coverage``, ``prompt_embeds`` and, for every condition, ``condition.NAME``. A condition
with its own VACE mask also has ``inactive.NAME``, ``mask.NAME`` (packed bits) and ``reference.NAME``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regen_train.schema import SCHEMA_VERSION, Bucket, ConditionLatents, Geometry, Sample
from regen_train.shards.checks import CONDITION_PATTERN, condition_names, info_faults, layout_faults, parse_info
from regen_train.shards.tensors import load_tensors, parse_header


@dataclass(frozen=True)
class EncodedSample:
    """A sample as bytes, ready for a tar.

    Args:
        key: Salted hash; names the sample inside its dataset.
        payload: The safetensors file.
        info: The JSON file.
    """

    key: str
    payload: bytes = field(repr=False)
    info: bytes = field(repr=False)


def sample_tensors(sample: Sample) -> dict[str, Tensor]:
    """Return the tensors of a sample as they are stored: float16, coverage and packed mask bits as uint8.

    Raises:
        ValueError: A value is not finite or too large for float16, or a condition's name does not fit; names each.
    """
    floats = {"latents": sample.latents, "prompt_embeds": sample.prompt_embeds}
    packed = {"human_coverage": sample.human_coverage.contiguous()}
    faults = []
    for name, condition in sample.conditions.items():
        if not CONDITION_PATTERN.fullmatch(name):
            faults.append(f"condition name {name!r} must be lower-case letters, digits and _")
        floats[f"condition.{name}"] = condition.reactive
        if condition.inactive is not None and condition.mask is not None and condition.reference is not None:
            floats[f"inactive.{name}"] = condition.inactive
            floats[f"reference.{name}"] = condition.reference
            packed[f"mask.{name}"] = torch.from_numpy(np.packbits(condition.mask.cpu().numpy().reshape(-1)))
    halves = {}
    for name, tensor in floats.items():
        halves[name] = tensor.detach().to("cpu", torch.float16).contiguous()
        if not bool(torch.isfinite(halves[name]).all()):
            faults.append(f"tensor {name!r} has values that are not finite or beyond float16 (65504)")
    if faults:
        raise ValueError(f"sample {sample.key!r} cannot be stored: " + "; ".join(faults))
    return halves | packed


def encode_sample(sample: Sample) -> EncodedSample:
    """Turn a sample into the bytes of its two files; the same sample gives the same bytes.

    Raises:
        ValueError: The sample's key, tensors or info cannot be stored; names each fault.
    """
    from safetensors.torch import save

    stated = {"schema_version": SCHEMA_VERSION, "key": sample.key, "bucket": str(sample.bucket)}
    stated["size"] = [sample.bucket.height, sample.bucket.width]
    info = dict(sample.info) | stated
    faults = info_faults(info, sample.key)
    if faults:
        raise ValueError(f"sample {sample.key!r} cannot be stored: " + "; ".join(faults))
    text = json.dumps(info, sort_keys=True, indent=1, allow_nan=False)
    return EncodedSample(sample.key, save(sample_tensors(sample)), text.encode())


def build_sample(tensors: Mapping[str, Tensor], info: Mapping[str, Any], geometry: Geometry) -> Sample:
    """Return the sample of tensors and info that were checked before; the tensors are not copied."""
    bucket = Bucket.parse(info["bucket"])
    shape = (geometry.mask_channels, *geometry.latent_shape(bucket)[1:])
    conditions = {}
    for name in condition_names(tensors):
        reactive = tensors[f"condition.{name}"]
        if f"mask.{name}" not in tensors:
            conditions[name] = ConditionLatents(reactive)
            continue
        bits = np.unpackbits(tensors[f"mask.{name}"].numpy(), count=int(np.prod(shape)))
        mask = torch.from_numpy(bits).view(torch.bool).view(shape)
        conditions[name] = ConditionLatents(reactive, tensors[f"inactive.{name}"], mask, tensors[f"reference.{name}"])
    return Sample(
        key=info["key"],
        bucket=bucket,
        latents=tensors["latents"],
        conditions=conditions,
        human_coverage=tensors["human_coverage"],
        prompt_embeds=tensors["prompt_embeds"],
        info=info,
    )


def decode_sample(encoded: EncodedSample, geometry: Geometry) -> Sample:
    """Turn a sample's bytes back into a sample, checking everything.

    Raises:
        ValueError: The bytes are no sample of this geometry; names every fault.
    """
    what = f"sample {encoded.key!r}"
    info = parse_info(encoded.info, key=encoded.key, what=what)
    specs = parse_header(memoryview(encoded.payload), what=what)
    faults = layout_faults(specs, Bucket.parse(info["bucket"]), geometry)
    if faults:
        raise ValueError(f"{what}: " + "; ".join(faults))
    return build_sample(load_tensors(encoded.payload, what=what), info, geometry)
