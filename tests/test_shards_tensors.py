"""Promise 7: nothing unsafe is read. A safetensors header is believed only where it cannot lie."""

import json
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_dataset import Bomb, make_sample

from regen_train.shards import encode_sample
from regen_train.shards.tensors import MAX_HEADER_BYTES, load_tensors, parse_header


def payload(header: Any, data: bytes = b"\0" * 24, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "header claims 0 bytes"),
        (payload({}), "1 to 1024 tensors, got 0"),
        (payload([]), "must be a JSON object"),
        (payload(b"{"), "is not JSON"),
        (payload(b"[" * 100_000), "is not JSON"),
        (payload(b'{"a":' + b"9" * 5000 + b"}"), "is not JSON"),
        (payload(pickle.dumps(Bomb())), "is not JSON"),
        (payload({"a": entry("F16", [12], 0, 24)}, length=1 << 62), "header claims 4611686018427387904 bytes"),
        (payload(b" " * (MAX_HEADER_BYTES + 8)), "header claims"),
        (payload(b'{"a":{"dtype":"U8","dtype":"U8"}}'), "a name stands twice"),
        (payload({"a": entry("F16", [12], 0, 24), "b": 3}), "tensor 'b': must have exactly dtype"),
        (payload({"a": entry("OBJECT", [3], 0, 24)}), "dtype must be one of"),
        (payload({"a": entry("F16", [1 << 61, 1 << 61], 0, 24)}), r"takes \d+ bytes, data_offsets span 24"),
        (payload({"a": entry("F16", [1 << 70], 0, 24)}), "positive integers"),
        (payload({"a": entry("F16", [12.0], 0, 24)}), "positive integers"),
        (payload({"a": entry("F16", [True], 0, 2)}), "positive integers"),
        (payload({"a": entry("F16", [-12], 0, 24)}), "positive integers"),
        (payload({"a": entry("F16", [0], 0, 24)}), "positive integers"),
        (payload({"a": entry("F16", [], 0, 24)}), "positive integers"),
        (payload({"a": entry("F16", [1] * 9, 0, 2)}), "positive integers"),
        (payload({"a": entry("F16", [12], -24, 0)}), "data_offsets must be two growing integers"),
        (payload({"a": entry("F16", [12], 24, 0)}), "data_offsets must be two growing integers"),
        (payload({"a": entry("F16", [12], "0", 24)}), "data_offsets must be two growing integers"),
        (payload({"a": entry("F16", [12], 1 << 40, (1 << 40) + 24)}), "overlap or hole"),
        (payload({"a": entry("F16", [12], 2, 26)}), "overlap or hole"),
        (payload({"a": entry("F16", [12], 0, 24), "b": entry("F16", [6], 12, 24)}), "overlap or hole"),
        (payload({"a": entry("F16", [6], 0, 12)}), "tensors take 12 bytes, the payload has 24"),
        (payload({"a": entry("F16", [24], 0, 48)}), "tensors take 48 bytes, the payload has 24"),
        (payload({"a": entry("U8", [1], 0, 1), "b": entry("F16", [11], 1, 23)}, b"\0" * 23), "does not divide"),
    ],
)
def test_a_lying_header_is_refused(broken: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_tensors(broken, what="a file")


def test_all_faults_of_a_header_are_named() -> None:
    broken = payload({"a": entry("F16", [-1], 0, 24), "b": entry("PICKLE", [1], 0, 1), "c": entry("U8", [2], 0, 1)})
    with pytest.raises(ValueError, match="a file: the safetensors header cannot be trusted") as caught:
        parse_header(memoryview(broken), what="a file")
    assert all(f"tensor {name!r}" in str(caught.value) for name in "abc")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_to_a_header_gets_through_unnoticed_or_crashes(data: st.DataObject) -> None:
    """Whatever bytes change, the parser either refuses or describes tensors inside the payload."""
    whole = bytearray(encode_sample(make_sample(0)).payload)
    length = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([None, length, 9]))
    try:
        tensors = load_tensors(bytes(whole[:cut]), what="a file")
    except ValueError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= len(whole)
