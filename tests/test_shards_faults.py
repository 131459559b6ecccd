"""Promise 7: nothing unsafe is read. A dataset that lies about itself or is damaged is refused, every fault named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_dataset import edit, make_sample, reseal, write_dataset

from regen_train.shards import ShardReader, build_index, load_dataset

REMEDY = "restore it from a copy or pack the dataset again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder, map(make_sample, range(4)))
    return folder


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    """A dataset to break."""
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


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
        (
            lambda c: c["settings"].update(fps=8),
            ["is not that of the dataset's content: dataset.json was edited or belongs to another", REMEDY],
        ),
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
    with pytest.raises(ValueError, match=rf"dataset\.json (cannot be read|must be a JSON object).*; {REMEDY}"):
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


def test_a_missing_shard_is_named(dataset: Path) -> None:
    (dataset / "shard-000001.tar").unlink()
    reader = ShardReader(str(dataset))
    reader.read(0)
    with pytest.raises(FileNotFoundError, match=rf"shard shard-000001\.tar is missing from .*; {REMEDY}"):
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
