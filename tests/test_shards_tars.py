"""Promise 7: nothing unsafe is read. Whatever else lies in a tar is refused by name, and never opened."""

import io
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_dataset import Bomb, make_sample, reseal, write_dataset

from regen_train.shards import ShardReader, build_index, load_dataset


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder, map(make_sample, range(4)))
    return folder


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    """A dataset to break."""
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


def add_member(shard: Path, name: str, data: bytes = b"", **fields: Any) -> None:
    with tarfile.open(shard, "a") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        for field, value in fields.items():
            setattr(entry, field, value)
        tar.addfile(entry, io.BytesIO(data))


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


def test_an_index_that_swaps_samples_is_refused(dataset: Path) -> None:
    path = dataset / "index.parquet"
    table = pq.read_table(path)
    offsets = table["offset"].to_pylist()
    offsets[0], offsets[1] = offsets[1], offsets[0]
    pq.write_table(table.set_column(table.column_names.index("offset"), "offset", pa.array(offsets)), path)
    reseal(dataset)
    message = r"index does not describe .*shard-000000\.tar; samples that differ: clip-0000, clip-0001"
    with pytest.raises(ValueError, match=message):
        ShardReader(str(dataset)).read(0)
