import gc
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_dataset import ENCODER, GEOMETRY, SETTINGS, SMALL, SMALLER, make_constants, make_sample, write_dataset

from regen_train.schema import Bucket, Sample
from regen_train.shards import (
    ShardReader,
    ShardWriter,
    build_index,
    decode_sample,
    encode_sample,
    fingerprint_of,
    load_dataset,
    sample_tensors,
    write_dataset_info,
)


def assert_equal(found: Sample, expected: Sample) -> None:
    assert (found.key, found.bucket) == (expected.key, expected.bucket)
    stored, wanted = sample_tensors(found), sample_tensors(expected)
    assert stored.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(stored[name], tensor), name
    for name, condition in expected.conditions.items():
        if condition.mask is not None:
            mask = found.conditions[name].mask
            assert mask is not None
            assert torch.equal(mask, condition.mask)
    assert expected.info.items() <= found.info.items()


@settings(max_examples=20, deadline=None)
@given(
    number=st.integers(0, 1000),
    frames=st.integers(0, 3),
    masked=st.booleans(),
    prompt_tokens=st.integers(1, 512),
    conditions=st.sets(st.sampled_from(["structhuman", "structall", "depth"]), min_size=1),
)
def test_a_sample_survives_its_bytes(
    number: int, frames: int, masked: bool, prompt_tokens: int, conditions: set[str]
) -> None:
    bucket = Bucket(4 * frames + 1, 16, 48)
    sample = make_sample(
        number, bucket=bucket, masked=masked, prompt_tokens=prompt_tokens, conditions=sorted(conditions)
    )
    encoded = encode_sample(sample)
    assert encoded == encode_sample(sample)
    assert_equal(decode_sample(encoded, GEOMETRY), sample)


@pytest.mark.parametrize("masked", [False, True])
def test_written_samples_are_read(tmp_path: Path, masked: bool) -> None:
    samples = [make_sample(number, masked=masked, bucket=(SMALL, SMALLER)[number % 2]) for number in range(8)]
    info = write_dataset(tmp_path, reversed(samples))
    assert info.buckets == {str(SMALLER): 4, str(SMALL): 4}
    assert info.conditions == ("structall", "structhuman")
    assert info.masked_conditions == (info.conditions if masked else ())
    assert [shard.name for shard in info.shards] == [f"shard-{number:06d}.tar" for number in range(3)]
    reader = ShardReader(str(tmp_path))
    assert len(reader) == info.num_samples == 8
    for number, sample in enumerate(samples):
        assert_equal(reader.read(number), sample)


def test_constants_are_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, [make_sample(0), make_sample(1, bucket=SMALLER)])
    constants, expected = load_dataset(str(tmp_path)).constants, make_constants([SMALL, SMALLER])
    assert torch.equal(constants.inactive[SMALL].float(), expected.inactive[SMALL])
    assert torch.equal(constants.inactive[SMALLER].float(), expected.inactive[SMALLER])
    assert torch.equal(constants.empty_prompt.float(), expected.empty_prompt)
    assert torch.equal(constants.negative_prompt.float(), expected.negative_prompt)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_dataset(tmp_path / name, map(make_sample, range(5)))
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == [
        "constants.safetensors",
        "dataset.json",
        "index.parquet",
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_the_fingerprint_follows_content_and_not_shards(tmp_path: Path) -> None:
    samples = [make_sample(number) for number in range(5)]
    first = write_dataset(tmp_path / "first", samples, max_samples=2)
    second = write_dataset(tmp_path / "second", reversed(samples), max_samples=4)
    assert first.fingerprint == second.fingerprint
    assert first.shards != second.shards
    other = write_dataset(tmp_path / "other", [*samples[:4], make_sample(5)])
    assert other.fingerprint != first.fingerprint
    keys = [row.key for row in load_dataset(str(tmp_path / "first")).rows]
    assert keys == [row.key for row in load_dataset(str(tmp_path / "second")).rows] == sorted(keys)


def test_shards_end_at_a_size(tmp_path: Path) -> None:
    size = len(encode_sample(make_sample(0)).payload)
    with ShardWriter(tmp_path, max_shard_bytes=int(2.9 * size)) as writer:
        for number in range(5):
            writer.write(make_sample(number))
    assert [len(shard.samples) for shard in writer.shards] == [2, 2, 1]
    with ShardWriter(tmp_path / "tiny", max_shard_bytes=1) as writer:
        for number in range(2):
            writer.write(make_sample(number))
    assert [len(shard.samples) for shard in writer.shards] == [1, 1]


def test_the_index_says_where_the_bytes_are(tmp_path: Path) -> None:
    write_dataset(tmp_path, map(make_sample, range(4)))
    assert [shard.record for shard in build_index(tmp_path)] == list(load_dataset(str(tmp_path)).info.shards)
    for row in load_dataset(str(tmp_path)).rows:
        data = (tmp_path / row.shard).read_bytes()
        payload = data[row.offset : row.offset + row.size]
        assert hashlib.sha256(payload).hexdigest() == row.sha256
        assert "latents" in safetensors.torch.load(payload)
        assert json.loads(data[row.json_offset : row.json_offset + row.json_size])["key"] == row.key


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    samples = [make_sample(number) for number in range(5)]
    write_dataset(tmp_path, samples)
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    # Never bare decode(): it would unpickle a pickle.
    pipeline = webdataset.WebDataset(shards, shardshuffle=False).decode(
        webdataset.handle_extension("safetensors", safetensors.torch.load), only=["safetensors", "json"]
    )
    found = list(pipeline)
    assert [entry["__key__"] for entry in found] == [sample.key for sample in samples]
    for entry, sample in zip(found, samples, strict=True):
        assert torch.equal(entry["safetensors"]["latents"], sample.latents)
        assert entry["json"]["key"] == sample.key
        assert entry["json"]["bucket"] == str(sample.bucket)
    del pipeline
    gc.collect()  # webdataset leaves its files to the collector, which warns


def test_the_writer_leaves_no_half_shard(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with ShardWriter(tmp_path, max_samples=2) as writer:
            for number in range(3):
                writer.write(make_sample(number))
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_and_fail()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_the_writer_replaces_a_dataset_only_when_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, map(make_sample, range(9)))
    with pytest.raises(FileExistsError, match="already holds 3 tars"):
        ShardWriter(tmp_path)
    (tmp_path / ".shard-000007.123.tmp").write_bytes(b"left by a killed run")
    writer = ShardWriter(tmp_path, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["constants.safetensors", "index.parquet"]
    writer.write(make_sample(1))
    assert len(writer.close()) == 1


def test_tensors_share_the_memory_of_the_shard(tmp_path: Path) -> None:
    write_dataset(tmp_path, map(make_sample, range(2)))
    reader = ShardReader(str(tmp_path))
    first, second = reader.read_tensors(0), reader.read_tensors(0)
    assert first["latents"].data_ptr() == second["latents"].data_ptr()
    reader.close()
    assert torch.equal(first["latents"], make_sample(0).latents)


def test_samples_must_belong_together(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_sample(0))
        writer.write(make_sample(1, encoder={"pretrained": "another"}))
        writer.write(make_sample(2, conditions=["structhuman"]))
        writer.write(make_sample(3, bucket=SMALLER))
    with pytest.raises(ValueError, match="cannot become a dataset") as caught:
        write_dataset_info(
            tmp_path,
            writer.shards,
            encoder=ENCODER,
            settings=SETTINGS,
            geometry=GEOMETRY,
            constants=make_constants([SMALL]),
        )
    assert "'clip-0001' was made with another encoder" in str(caught.value)
    assert "'clip-0002' has conditions ('structhuman',)" in str(caught.value)
    assert "lack inactive latents of bucket 5x32x32" in str(caught.value)
    assert not (tmp_path / "dataset.json").exists()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint_of({"a": 1, "b": [2, 3]}) == fingerprint_of({"b": [2, 3], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


def test_a_key_stands_once(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, max_samples=1)
    writer.write(make_sample(0))
    writer.write(make_sample(0))
    with pytest.raises(ValueError, match=r"clip-0000' stands twice, in shard shard-000000.+and in shard-000001"):
        writer.close()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("latents", float("nan"), "tensor 'latents' has values that are not finite"),
        ("latents", 1e6, "tensor 'latents' has values that are not finite or beyond float16"),
        ("prompt_embeds", float("inf"), "tensor 'prompt_embeds'"),
    ],
)
def test_values_that_float16_cannot_hold_are_refused(name: str, value: float, message: str) -> None:
    sample = make_sample(0)
    tensor = getattr(sample, name).float()
    tensor.view(-1)[3] = value
    with pytest.raises(ValueError, match=message):
        encode_sample(Sample(**(vars(sample) | {name: tensor})))


def test_what_cannot_be_stored_is_named_at_once() -> None:
    sample = make_sample(0)
    broken = Sample(**(vars(sample) | {"key": "../clip", "info": {"guard": {}, "fingerprints": {"encoder": "x"}}}))
    with pytest.raises(ValueError, match="cannot be stored") as caught:
        encode_sample(broken)
    for fault in (
        "key must be letters",
        "fps must be a positive number",
        "fingerprints.settings",
        "fingerprints.source",
    ):
        assert fault in str(caught.value)
