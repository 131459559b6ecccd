"""A safetensors reader for untrusted bytes: zero-copy views, and nothing is believed before it is checked.

The `safetensors` library copies what it loads and reads whole files; a sample is a slice of a mapped tar. So this file
parses the format itself: eight bytes of header length, a JSON header of dtypes, shapes and offsets, the data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_HEADER_BYTES = 1 << 17
MAX_TENSORS = 1024
MAX_DIMENSIONS = 8
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "U8": torch.uint8, "I64": torch.int64}


@dataclass(frozen=True)
class TensorSpec:
    """Where one tensor lies.

    Args:
        dtype: Name of the dtype in the format, such as ``"F16"``.
        shape: Sizes, all positive.
        offset: First byte, counted from the start of the payload.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int


def parse_header(payload: memoryview, *, what: str) -> dict[str, TensorSpec]:
    """Read and check the header of a safetensors payload.

    Args:
        payload: The whole payload, header and data.
        what: What is read, for the error message.

    Returns:
        Tensor name to where it lies; every tensor lies inside the payload, none overlaps another, no byte is unused.

    Raises:
        ValueError: The header is not a safetensors header or lies about the payload; names every fault.
    """
    header = read_header(payload, what=what)
    try:
        return parse_header_text(header, len(payload))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def read_header(payload: memoryview, *, what: str) -> bytes:
    """Return the JSON text of a payload's header, unread.

    Raises:
        ValueError: Its length cannot be true.
    """
    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 10 or length > min(MAX_HEADER_BYTES, len(payload) - 8):
        raise ValueError(
            f"{what}: the safetensors header claims {length} bytes; at most {MAX_HEADER_BYTES} are read and the "
            f"payload has {len(payload)}"
        )
    return bytes(payload[8 : 8 + length])


def parse_header_text(text: bytes, num_bytes: int) -> dict[str, TensorSpec]:
    """Check the JSON text of a header against the length of its payload; else as `parse_header`."""
    start = 8 + len(text)
    faults: list[str] = []
    specs = {}
    spans = []
    for name, entry in _load_json(text).items():
        fault = _entry_fault(entry)
        if fault:
            faults.append(f"tensor {name!r}: {fault}")
            continue
        begin, end = entry["data_offsets"]
        specs[name] = TensorSpec(entry["dtype"], tuple(entry["shape"]), start + begin)
        if (start + begin) % DTYPES[entry["dtype"]].itemsize:
            faults.append(f"tensor {name!r} begins at byte {start + begin}, which {entry['dtype']} does not divide")
        spans.append((begin, end, name))
    if not faults:
        faults += _span_faults(spans, num_bytes - start, start)
    if faults:
        raise ValueError("the safetensors header cannot be trusted: " + "; ".join(faults[:20]))
    return specs


def view_tensors(buffer: Any, offset: int, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """Return tensors that share the buffer's memory; they keep it alive.

    Args:
        buffer: A writable buffer, such as a copy-on-write mapping of a file; nothing is written to it.
        offset: Where the payload begins in the buffer, in bytes.
        specs: What `parse_header` returned for that payload.
    """
    return {
        name: torch.frombuffer(
            buffer, dtype=DTYPES[spec.dtype], count=math.prod(spec.shape), offset=offset + spec.offset
        ).view(spec.shape)
        for name, spec in specs.items()
    }


def load_tensors(payload: bytes, *, what: str) -> dict[str, Tensor]:
    """Read a small safetensors file held in memory, with the checks of `parse_header`."""
    return view_tensors(bytearray(payload), 0, parse_header(memoryview(payload), what=what))


def _load_json(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the safetensors header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"the safetensors header must be a JSON object, got {type(header).__name__}")  # noqa: TRY004
    header.pop("__metadata__", None)
    if not 0 < len(header) <= MAX_TENSORS:
        raise ValueError(f"a safetensors payload holds 1 to {MAX_TENSORS} tensors, got {len(header)}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _entry_fault(entry: Any) -> str | None:
    """Return what is wrong with a tensor's own entry, regardless of the others."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "must have exactly dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}"
    if not _are_integers(shape) or not 0 < len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        return f"shape must be 1 to {MAX_DIMENSIONS} positive integers"
    if not _are_integers(offsets) or len(offsets) != 2 or not 0 <= offsets[0] < offsets[1]:
        return "data_offsets must be two growing integers"
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        return f"{dtype} of shape {shape} takes {needed} bytes, data_offsets span {offsets[1] - offsets[0]}"
    return None


def _are_integers(values: Any) -> bool:
    """Tell whether this is a list of integers small enough for any file; JSON's true is none."""
    return isinstance(values, list) and all(type(value) is int and abs(value) < 1 << 62 for value in values)


def _span_faults(spans: list[tuple[int, int, str]], data_bytes: int, start: int) -> list[str]:
    faults = []
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            faults.append(f"tensor {name!r} begins at byte {begin} of the data, {expected} expected (overlap or hole)")
        expected = end
    if expected != data_bytes:
        faults.append(f"tensors take {expected} bytes, the payload has {data_bytes} (header ends at byte {start})")
    return faults
