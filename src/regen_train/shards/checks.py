"""What a stored sample must look like: its JSON, its tensors' names, dtypes and shapes."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from regen_train.schema import MAX_PROMPT_TOKENS, SCHEMA_VERSION, Bucket, Geometry
from regen_train.shards.tensors import TensorSpec, parse_header_text

KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
CONDITION_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
FINGERPRINTS = ("encoder", "settings", "source")
MAX_INFO_BYTES = 1 << 20


def info_faults(info: Mapping[str, Any], key: str) -> list[str]:
    """Return what is wrong with a sample's JSON."""
    faults = []
    if not KEY_PATTERN.fullmatch(key):
        faults.append(f"key must be letters, digits, _ and - (at most 128, no dot), got {key!r}")
    if info.get("schema_version") != SCHEMA_VERSION:
        faults.append(f"schema_version must be {SCHEMA_VERSION}, got {info.get('schema_version')!r}")
    if info.get("key") != key:
        faults.append(f"key must be {key!r}, got {info.get('key')!r}")
    fps = info.get("fps")
    if not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        faults.append(f"fps must be a positive number, got {fps!r}")
    if not isinstance(info.get("guard"), Mapping):
        faults.append(f"guard must be the guard's report as a mapping, got {info.get('guard')!r}")
    fingerprints = info.get("fingerprints")
    if not isinstance(fingerprints, Mapping):
        faults.append(f"fingerprints must be a mapping with {', '.join(FINGERPRINTS)}, got {fingerprints!r}")
    else:
        faults += [
            f"fingerprints.{name} must be a string, got {fingerprints.get(name)!r}"
            for name in FINGERPRINTS
            if not isinstance(fingerprints.get(name), str)
        ]
    try:
        Bucket.parse(str(info.get("bucket")))
    except ValueError as error:
        faults.append(str(error))
    return faults


def parse_info(data: bytes, *, key: str, what: str) -> dict[str, Any]:
    """Read and check a sample's JSON.

    Raises:
        ValueError: It is too long, no JSON object, of another schema or lacks a field; names every fault.
    """
    if len(data) > MAX_INFO_BYTES:
        raise ValueError(f"{what}: a sample's json has at most {MAX_INFO_BYTES} bytes, got {len(data)}")
    try:
        info = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: a sample's json cannot be read: {error}") from error
    if not isinstance(info, dict):
        raise ValueError(f"{what}: a sample's json must be an object, got {type(info).__name__}")  # noqa: TRY004
    faults = info_faults(info, key)
    if faults:
        raise ValueError(f"{what}: " + "; ".join(faults))
    return info


def condition_names(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the conditions a sample has, by its tensors' names."""
    return tuple(sorted(name.removeprefix("condition.") for name in names if name.startswith("condition.")))


def masked_condition_names(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the conditions of a sample that have their own VACE mask, by its tensors' names."""
    return tuple(sorted(name.removeprefix("mask.") for name in names if name.startswith("mask.")))


def layout_faults(specs: Mapping[str, TensorSpec], bucket: Bucket, geometry: Geometry) -> list[str]:
    """Return every tensor that a sample of this bucket must not have, lacks, or has in another dtype or shape."""
    conditions = condition_names(specs)
    c, f, h, w = geometry.latent_shape(bucket)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"latents": ("F16", (c, f, h, w))}
    expected["human_coverage"] = ("U8", (f, h, w))
    for name in conditions:
        expected[f"condition.{name}"] = ("F16", (c, f, h, w))
    for name in masked_condition_names(specs):
        bits = geometry.mask_channels * f * h * w
        expected[f"inactive.{name}"] = ("F16", (c, f, h, w))
        expected[f"reference.{name}"] = ("F16", (c, 1, h, w))
        expected[f"mask.{name}"] = ("U8", ((bits + 7) // 8,))
    faults = [f"tensor {name!r} is missing" for name in expected if name not in specs]
    faults += [f"tensor {name!r} is unknown" for name in specs if name not in expected and name != "prompt_embeds"]
    faults += [f"condition name {name!r} must be lower-case" for name in conditions if not _is_condition(name)]
    faults += [
        f"tensor {name!r} must be {dtype} {list(shape)}, got {specs[name].dtype} {list(specs[name].shape)}"
        for name, (dtype, shape) in expected.items()
        if name in specs and (specs[name].dtype, specs[name].shape) != (dtype, shape)
    ]
    return faults + _prompt_faults(specs.get("prompt_embeds"), geometry) + ([] if conditions else ["no condition"])


@lru_cache(maxsize=1024)
def checked_layout(header: bytes, num_bytes: int, bucket: Bucket, geometry: Geometry) -> Mapping[str, TensorSpec]:
    """Check the header of a sample's payload, once for all samples that have the same one.

    Args:
        header: The JSON text.
        num_bytes: Of the whole payload.
        bucket: The sample's.
        geometry: The dataset's.

    Returns:
        Tensor name to where it lies.

    Raises:
        ValueError: The header lies, or is not that of such a sample; names every fault.
    """
    specs = parse_header_text(header, num_bytes)
    faults = layout_faults(specs, bucket, geometry)
    if faults:
        raise ValueError("; ".join(faults))
    return specs


def _is_condition(name: str) -> bool:
    return CONDITION_PATTERN.fullmatch(name) is not None


def _prompt_faults(spec: TensorSpec | None, geometry: Geometry) -> list[str]:
    if spec is None:
        return ["tensor 'prompt_embeds' is missing"]
    shape = spec.shape
    if spec.dtype == "F16" and len(shape) == 2 and shape[0] <= MAX_PROMPT_TOKENS and shape[1] == geometry.text_dim:
        return []
    expected = f"F16 [1 to {MAX_PROMPT_TOKENS}, {geometry.text_dim}]"
    return [f"tensor 'prompt_embeds' must be {expected}, got {spec.dtype} {list(shape)}"]
