"""Datasets that lie elsewhere, and the local cache of their shards."""

import functools
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch
from toy_dataset import make_sample, write_dataset

from regen_train.data import Loading, ShardDataModule
from regen_train.shards import CacheSpec, ShardReader, cache, load_dataset

MEMORY = "memory://dataset"
NUM_SAMPLES = 8


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Path]:
    """A dataset of four shards in a folder, and the same at `MEMORY`."""
    folder = tmp_path / "whole"
    write_dataset(folder, map(make_sample, range(NUM_SAMPLES)), max_samples=2)
    store = fsspec.filesystem("memory")
    for path in folder.iterdir():
        store.pipe_file(f"dataset/{path.name}", path.read_bytes())
    yield folder
    store.rm("dataset", recursive=True)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the remote shards that were opened."""
    names: list[str] = []
    original = cache.Storage.open

    def spy(storage: cache.Storage, name: str) -> object:
        names.append(name)
        return original(storage, name)

    monkeypatch.setattr(cache.Storage, "open", spy)
    return names


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.2)


def shard_size(folder: Path) -> int:
    return (folder / "shard-000000.tar").stat().st_size


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def check(reader: ShardReader, numbers: range = range(NUM_SAMPLES)) -> None:
    for number in numbers:
        assert torch.equal(reader.read(number).latents, make_sample(number).latents)


def test_a_remote_dataset_is_read_through_the_cache(whole: Path, tmp_path: Path, opened: list[str]) -> None:
    spec = CacheSpec(str(tmp_path / "cache"))
    check(ShardReader(MEMORY, cache=spec))
    check(ShardReader(MEMORY, cache=spec))
    shards = [name for name in opened if name.endswith(".tar")]
    assert sorted(shards) == [f"shard-{number:06d}.tar" for number in range(4)]
    stored = {path.stem: path.read_bytes() for path in copies(tmp_path / "cache")}
    assert stored == {r.sha256: (whole / r.name).read_bytes() for r in load_dataset(str(whole)).info.shards}


def test_a_dataset_behind_http_is_read(whole: Path, tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(whole)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        check(ShardReader(address, cache=CacheSpec(str(tmp_path / "cache"))))
        with pytest.raises(FileNotFoundError, match="there is no dataset at"):
            load_dataset(f"{address}/elsewhere")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_data_module_trains_from_elsewhere(whole: Path, tmp_path: Path) -> None:
    spec = Loading(cache=CacheSpec(str(tmp_path / "cache"), gigabytes=3.5 * shard_size(whole) / 1e9))
    module = ShardDataModule(MEMORY, "structhuman", 1, loading=spec)
    module.setup("fit")
    iterator = iter(module.train_dataloader())
    for _ in range(20):
        key = next(iterator).keys[0]
        assert key.startswith("clip-")
    iterator.close()  # type: ignore[attr-defined]
    assert sum(path.stat().st_size for path in copies(tmp_path / "cache")) <= 3.5 * shard_size(whole)


def test_the_copy_used_longest_ago_is_evicted(whole: Path, tmp_path: Path, opened: list[str]) -> None:
    spec = CacheSpec(str(tmp_path / "cache"), gigabytes=2.5 * shard_size(whole) / 1e9)
    reader = ShardReader(MEMORY, cache=spec)
    for age, number in enumerate((0, 2, 0)):
        reader.read(number)
        for path in copies(tmp_path / "cache"):  # make the times differ by more than the clock's step
            os.utime(path, (age, path.stat().st_mtime - 10))
    reader.read(4)
    assert len(copies(tmp_path / "cache")) == 2
    before = len(opened)
    reader.read(0)
    assert len(opened) == before
    reader.read(2)
    assert opened[before:] == ["shard-000001.tar"]


def test_a_copy_in_use_is_never_evicted(whole: Path, tmp_path: Path) -> None:
    spec = CacheSpec(str(tmp_path / "cache"), gigabytes=1.5 * shard_size(whole) / 1e9)
    reader, other = (ShardReader(MEMORY, cache=spec) for _ in range(2))
    held = reader.read(0)
    for blocked in (reader, other):
        with pytest.raises(
            ValueError, match=r"all of it has been in use .* raise its gigabytes or make smaller shards"
        ):
            blocked.read(2)
    assert torch.equal(held.latents, make_sample(0).latents)
    check(other, range(2))
    del held
    gc.collect()
    check(other)
    assert len(copies(tmp_path / "cache")) == 1


def test_a_shard_larger_than_the_cache_is_refused(whole: Path, tmp_path: Path) -> None:
    reader = ShardReader(MEMORY, cache=CacheSpec(str(tmp_path / "cache"), gigabytes=0.5 * shard_size(whole) / 1e9))
    with pytest.raises(ValueError, match=r"shard shard-000000\.tar has \d+ bytes, the cache only \d+"):
        reader.read(0)


def test_many_threads_and_caches_share_one_folder(whole: Path, tmp_path: Path, opened: list[str]) -> None:
    spec = CacheSpec(str(tmp_path / "cache"))
    readers = [ShardReader(MEMORY, cache=spec) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: check(readers[n % 4], range(n % NUM_SAMPLES, n % NUM_SAMPLES + 1)), range(64)))
    assert sorted(name for name in opened if name.endswith(".tar")) == [f"shard-{n:06d}.tar" for n in range(4)]


def test_threads_share_a_cache_that_holds_too_little(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 30.0)
    limit = 2.2 * shard_size(whole)
    readers = [ShardReader(MEMORY, cache=CacheSpec(str(tmp_path / "cache"), limit / 1e9)) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for reader in readers:
            threads.submit(check, reader).result()
        for done in [threads.submit(check, reader) for reader in readers]:
            done.result()
    assert sum(path.stat().st_size for path in copies(tmp_path / "cache")) <= limit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "is truncated"),
        (lambda data: data + b"x", "is longer than it was"),
        (lambda data: data[:3000] + bytes([data[3000] ^ 1]) + data[3001:], "damaged samples: clip-0000"),
    ],
)
def test_a_damaged_shard_does_not_enter_the_cache(
    whole: Path, tmp_path: Path, opened: list[str], damage: object, message: str
) -> None:
    assert callable(damage)
    data = damage((whole / "shard-000000.tar").read_bytes())
    fsspec.filesystem("memory").pipe_file("dataset/shard-000000.tar", data)
    reader = ShardReader(MEMORY, cache=CacheSpec(str(tmp_path / "cache")))
    with pytest.raises(ValueError, match=message):
        reader.read(0)
    assert opened.count("shard-000000.tar") == 3
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix in {".tar", ".part"}]


def test_a_missing_shard_is_named(whole: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm("dataset/shard-000003.tar")
    with pytest.raises(FileNotFoundError, match=rf"shard shard-000003\.tar is missing from {MEMORY}; restore it"):
        ShardReader(MEMORY, cache=CacheSpec(str(tmp_path / "cache"))).read(7)


def test_a_broken_connection_is_tried_again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = cache.Storage.open, []

    def flaky(storage: cache.Storage, name: str) -> object:
        calls.append(name)
        if len(calls) < 3:
            raise ConnectionResetError("the line went dead")
        return original(storage, name)

    reader = ShardReader(MEMORY, cache=CacheSpec(str(tmp_path / "cache")))
    monkeypatch.setattr(cache.Storage, "open", flaky)
    check(reader, range(2))
    assert calls == ["shard-000000.tar"] * 3


def test_what_a_killed_download_left_is_removed(whole: Path, tmp_path: Path) -> None:
    record = load_dataset(str(whole)).info.shards[0]
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / f"{record.sha256}.part").write_bytes(b"x" * record.size)
    (folder / f"{'0' * 64}.part").write_bytes(b"x" * record.size)
    (folder / f"{'0' * 64}.lock").touch()
    check(ShardReader(MEMORY, cache=CacheSpec(str(folder), gigabytes=1.5 * record.size / 1e9)), range(2))
    assert not list(folder.glob("*.part"))


def test_a_cut_copy_is_downloaded_again(whole: Path, tmp_path: Path) -> None:
    spec = CacheSpec(str(tmp_path / "cache"))
    check(ShardReader(MEMORY, cache=spec))
    for path in copies(tmp_path / "cache"):
        path.write_bytes(path.read_bytes()[:-1])
    check(ShardReader(MEMORY, cache=spec))


def test_an_address_nobody_reads_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"cannot read nosuch:// .* pip install"):
        load_dataset("nosuch://bucket/dataset")
