"""Promise 7: nothing unsafe is read. Every fault is a clear error that names what is wrong."""

import hashlib
import io
import json
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_dataset import make_sample, write_dataset

from regen_train.shards import ShardReader, build_index, encode_sample, load_dataset
from regen_train.shards.tensors import MAX_HEADER_BYTES, load_tensors, parse_header


class Bomb:
    """A pickle that shows when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder, map(make_sample, range(4)))
    return folder


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    """A dataset to break."""
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = dataset / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reseal(dataset: Path) -> None:
    """Make dataset.json agree with the files again, as someone who means harm would."""

    def change(content: dict[str, Any]) -> None:
        for shard in content["shards"]:
            path = dataset / shard["name"]
            shard |= {"size": path.stat().st_size, "sha256": digest(path)}
        content["files"] = {name: digest(dataset / name) for name in content["files"]}

    edit(dataset, change)


def add_member(shard: Path, name: str, data: bytes = b"", **fields: Any) -> None:
    with tarfile.open(shard, "a") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        for field, value in fields.items():
            setattr(entry, field, value)
        tar.addfile(entry, io.BytesIO(data))


# The dataset as a whole


def test_a_missing_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset.json is missing.*data_prep.run"):
        load_dataset(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda c: c.update(schema_version=2), ["schema_version must be 1, got 2"]),
        (lambda c: c.update(buckets={}, shards=[]), ["the dataset is empty"]),
        (lambda c: c.update(shards=5, encoder=None), ["shards must be list, got 5", "encoder must be dict, got None"]),
        (lambda c: c["shards"][0].update(name="../shard-000000.tar"), ["no plain tar name"]),
        (lambda c: c["shards"][0].update(name="/etc/passwd.tar"), ["no plain tar name"]),
        (lambda c: c["shards"][1].update(name="shard-000000.tar"), ["stands twice"]),
        (lambda c: c["geometry"].update(text_dim=-1, latent_channels=0), ["geometry must be positive integers"]),
        (lambda c: c["geometry"].pop("text_dim"), ["geometry must have"]),
        (lambda c: c["settings"].update(fps=8), ["is not that of the dataset's content"]),
        (lambda c: c["buckets"].update({"9x32x48": 3}), ["counts {'9x32x48': 3} samples by bucket"]),
        (lambda c: c["buckets"].update({"huge": 1}), ["a bucket is FRAMESxHEIGHTxWIDTH"]),
        (
            lambda c: (c["shards"][0].update(size=-1), c["shards"][1].pop("sha256"), c["files"].clear()),
            ["shards[0] must state its size", "shards[1] must have name", "files.index.parquet must be a SHA-256"],
        ),
    ],
)
def test_a_lying_dataset_json_is_refused(
    dataset: Path, change: Callable[[dict[str, Any]], object], messages: list[str]
) -> None:
    edit(dataset, change)
    with pytest.raises(ValueError, match="cannot be used") as caught:
        load_dataset(str(dataset))
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_dataset_json_that_is_none_is_refused(dataset: Path, text: str) -> None:
    (dataset / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json (cannot be read|must be a JSON object)"):
        load_dataset(str(dataset))


@pytest.mark.parametrize("name", ["index.parquet", "constants.safetensors"])
def test_an_interrupted_packing_is_noticed(dataset: Path, name: str) -> None:
    (dataset / name).write_bytes((dataset / name).read_bytes() + b"x")
    with pytest.raises(ValueError, match=f"{name} is not the file that dataset.json was written with"):
        load_dataset(str(dataset))
    (dataset / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_dataset(str(dataset))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("shard", "../other.tar", "shard '../other.tar' is not one of the dataset's"),
        ("offset", -512, "offset -512 .* leaves shard shard-000000.tar"),
        ("size", 1 << 40, "leaves shard shard-000000.tar"),
        ("json_size", 0, "leaves shard"),
        ("key", "../../key", "a key is letters"),
        ("key", "clip-0003", "'clip-0003' stands twice"),
        ("sha256", "abc", "sha256 must be 64 hex digits"),
        ("bucket", "9x0x48", "a bucket is FRAMESxHEIGHTxWIDTH"),
        ("size", None, "column 'size' must be int64 without gaps"),
    ],
)
def test_a_lying_index_is_refused(dataset: Path, column: str, value: object, message: str) -> None:
    path = dataset / "index.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[0] = value
    changed = table.set_column(table.column_names.index(column), column, pa.array(values, table[column].type))
    pq.write_table(changed, path)
    reseal(dataset)
    with pytest.raises(ValueError, match=message):
        load_dataset(str(dataset))


def test_an_index_that_is_none_is_refused(dataset: Path) -> None:
    (dataset / "index.parquet").write_bytes(b"PAR1 no parquet PAR1")
    reseal(dataset)
    with pytest.raises(ValueError, match=r"index\.parquet cannot be read"):
        load_dataset(str(dataset))


# Damage


def test_a_missing_shard_is_named(dataset: Path) -> None:
    (dataset / "shard-000001.tar").unlink()
    reader = ShardReader(str(dataset))
    reader.read(0)
    with pytest.raises(FileNotFoundError, match=r"shard shard-000001\.tar is missing"):
        reader.read(3)


def test_a_truncated_shard_is_named(dataset: Path) -> None:
    path = dataset / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"shard-000000\.tar is truncated: \d+ bytes expected, got \d+"):
        ShardReader(str(dataset)).read(0)


@pytest.mark.parametrize("keep", ["half", "end of a member", "without end mark"])
def test_a_truncated_shard_is_not_indexed(dataset: Path, keep: str) -> None:
    path = dataset / "shard-000000.tar"
    row = next(row for row in load_dataset(str(dataset)).rows if row.key == "clip-0002")
    end = row.offset + -(-row.size // 512) * 512
    length = {"half": row.offset + 100, "end of a member": row.json_offset - 512, "without end mark": end}[keep]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"shard-000000\.tar is refused.*(truncated|damaged)"):
        build_index(dataset)


def test_a_flipped_byte_names_its_sample(dataset: Path) -> None:
    row = next(row for row in load_dataset(str(dataset)).rows if row.key == "clip-0001")
    data = bytearray((dataset / row.shard).read_bytes())
    data[row.offset + row.size - 7] ^= 1
    (dataset / row.shard).write_bytes(data)
    reader = ShardReader(str(dataset))
    for _ in range(2):  # a damaged shard does not become good by asking again
        with pytest.raises(ValueError, match=r"shard-000000\.tar is damaged.*\(damaged samples: clip-0001\)"):
            reader.read(0)
    reader.read(3)


def test_a_flipped_byte_outside_the_tensors_is_noticed(dataset: Path) -> None:
    path = dataset / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="damaged samples: none, only bytes around them"):
        ShardReader(str(dataset)).read(0)


def test_a_shard_is_verified_once(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(str(dataset))
    reader.read(0)
    path = dataset / "shard-000000.tar"
    monkeypatch.setattr("regen_train.shards.reader.check_digest", lambda *_: pytest.fail("verified again"))
    reader.close()
    reader.read(0)
    reader.read(2)
    assert path.exists()


# What lies in a tar


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("../../escape.json", {}, "has a path in its name"),
        ("/absolute.json", {}, "has a path in its name"),
        ("folder/clip.json", {}, "has a path in its name"),
        ("clip-0009.pkl", {}, "pickles above all, are never read"),
        ("clip-0009.pyd", {}, "pickles above all, are never read"),
        ("clip-0000.pickle", {}, "pickles above all, are never read"),
        ("clip-0009.safetensors.gz", {}, "pickles above all, are never read"),
        ("clip-0009.json", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is not a plain file"),
        ("clip-0009.json", {"type": tarfile.LNKTYPE, "linkname": "clip-0000.json"}, "is not a plain file"),
        ("clip-0009.json", {"type": tarfile.FIFOTYPE}, "is not a plain file"),
        ("folder", {"type": tarfile.DIRTYPE}, "is not a plain file"),
        ("clip-0009.json", {}, "sample 'clip-0009' lacks its .safetensors"),
        ("clip-0000.json", {}, "stands twice"),
        ("a b.json", {}, "must be named by letters"),
    ],
)
def test_what_does_not_belong_in_a_tar_is_refused(
    dataset: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    data = b"" if fields else pickle.dumps(Bomb())
    add_member(dataset / "shard-000000.tar", name, data, **fields)
    with pytest.raises(ValueError, match="cannot be indexed") as caught:
        build_index(dataset)
    assert message in str(caught.value)
    reseal(dataset)
    with pytest.raises(ValueError, match=r"shard-000000\.tar is refused") as caught:
        ShardReader(str(dataset)).read(0)
    assert message in str(caught.value)


def test_all_faults_of_all_tars_are_named(dataset: Path) -> None:
    for shard in ("shard-000000.tar", "shard-000001.tar"):
        add_member(dataset / shard, "../escape.json")
        add_member(dataset / shard, "bomb.pkl", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cannot be indexed") as caught:
        build_index(dataset)
    for part in ("shard-000000.tar", "shard-000001.tar", "'../escape.json'", "'bomb.pkl'"):
        assert str(caught.value).count(part) >= 1
    assert str(caught.value).count("'bomb.pkl'") == 2


def test_bytes_after_the_end_are_refused(dataset: Path) -> None:
    path = dataset / "shard-000001.tar"
    path.write_bytes(path.read_bytes() + pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="something follows its last member"):
        build_index(dataset)


def test_an_index_of_other_bytes_is_refused(dataset: Path) -> None:
    """A sample swapped for another valid one, and everything resealed but the index."""
    rows = {row.key: row for row in load_dataset(str(dataset)).rows}
    row = rows["clip-0001"]
    data = bytearray((dataset / row.shard).read_bytes())
    data[row.offset - 512 : row.offset - 512 + 9] = b"clip-0009"
    (dataset / row.shard).write_bytes(data)
    reseal(dataset)
    with pytest.raises(ValueError, match="refused"):
        ShardReader(str(dataset)).read(0)


# Safetensors headers


def payload(header: Any, data: bytes = b"\0" * 24, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "at least 10 bytes"),
        (payload({}), "1 to 1024 tensors, got 0"),
        (payload([]), "must be a JSON object"),
        (payload(b"{"), "is not JSON"),
        (payload(b"[" * 200_000), "is not JSON"),
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


def test_a_lying_header_in_a_sealed_shard_is_refused(dataset: Path) -> None:
    row = load_dataset(str(dataset)).rows[0]
    data = bytearray((dataset / row.shard).read_bytes())
    start = data.index(b'"data_offsets":[', row.offset) + len(b'"data_offsets":[')
    data[start : start + 1] = b"9"
    (dataset / row.shard).write_bytes(data)
    reseal(dataset)
    with pytest.raises(ValueError, match=r"sample 'clip-0000' in .*shard-000000\.tar.*cannot be trusted"):
        ShardReader(str(dataset)).read(0)
    with pytest.raises(ValueError, match="cannot be trusted"):
        build_index(dataset)


def test_a_sample_of_another_shape_is_refused(dataset: Path) -> None:
    """Both shapes have as many bytes, so only the bucket can tell."""
    row = load_dataset(str(dataset)).rows[0]
    data = (dataset / row.shard).read_bytes()
    wrong = data.replace(b'"shape":[4,3,4,6]', b'"shape":[4,3,6,4]')
    wrong = wrong.replace(b'"prompt_embeds"', b'"prompt_Embeds"')
    assert wrong != data
    (dataset / row.shard).write_bytes(wrong)
    reseal(dataset)
    with pytest.raises(ValueError, match="sample 'clip-0000'") as caught:
        ShardReader(str(dataset)).read(0)
    assert "tensor 'latents' must be F16 [4, 3, 4, 6], got F16 [4, 3, 6, 4]" in str(caught.value)
    assert "tensor 'prompt_embeds' is missing" in str(caught.value)
    assert "tensor 'prompt_Embeds' is unknown" in str(caught.value)


def test_a_json_of_another_sample_is_refused(dataset: Path) -> None:
    row = load_dataset(str(dataset)).rows[0]
    data = (dataset / row.shard).read_bytes().replace(b'"key": "clip-0000"', b'"key": "clip-0001"')
    (dataset / row.shard).write_bytes(data)
    reseal(dataset)
    with pytest.raises(ValueError, match="key must be 'clip-0000', got 'clip-0001'"):
        ShardReader(str(dataset)).read(0)
