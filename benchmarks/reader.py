"""Our shard reader against plain webdataset: samples per second from page cache, in one process.

Both deliver the raw tensors of every sample in random order, and whatever they deliver is copied once into a batch that
is allocated once, as training copies into recycled page-locked memory.

- webdataset reads the tars as it always does, front to back in shuffled shard order, through a shuffle buffer, and a
  decoder that builds the tensors with `safetensors.torch.load` (no pickle). It runs without worker processes, which are
  slower at this size: every sample would be copied through shared memory.
- Ours reads the samples of a random permutation as views of the mapped shards with `ShardReader`; by one thread, and by
  the two threads that training uses.

Our reader has opened the shards once before the clock starts, so its check of their SHA-256 is not in the time; it is
printed by itself. The runs alternate; medians are compared.

Run: ``python benchmarks/reader.py`` (1 GB of disk and page cache, about a minute).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import webdataset
from safetensors.torch import load
from torch import Tensor

from regen_train.schema import Bucket, ConditionLatents, Geometry, Sample
from regen_train.shards import Constants, ShardReader, ShardWriter, fingerprint_of, sample_tensors, write_dataset_info

GEOMETRY = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=4096)
BUCKET = Bucket(num_frames=81, height=480, width=832)
TARGET_RATIO = 15
NUM_PASSES = 10


def make_sample(number: int) -> Sample:
    """Return a sample of 14.4 MB: latents and two conditions of 81 x 480 x 832, and a caption of 130 tokens."""
    generator = torch.Generator().manual_seed(number)
    shape = GEOMETRY.latent_shape(BUCKET)

    def latents() -> Tensor:
        return torch.randn(shape, generator=generator).half()

    return Sample(
        key=f"sample-{number:05d}",
        bucket=BUCKET,
        latents=latents(),
        conditions={"structhuman": ConditionLatents(latents()), "structall": ConditionLatents(latents())},
        human_coverage=torch.randint(0, 256, shape[1:], dtype=torch.uint8, generator=generator),
        prompt_embeds=torch.randn(130, GEOMETRY.text_dim, generator=generator).half(),
        info={
            "fps": 16.0,
            "guard": {"verdict": "pass"},
            "fingerprints": {"encoder": fingerprint_of({}), "settings": fingerprint_of({}), "source": "0" * 64},
        },
    )


def write_dataset(folder: Path, num_samples: int) -> None:
    """Write a dataset of random samples, 16 a shard."""
    with ShardWriter(folder, max_samples=16) as writer:
        for number in range(num_samples):
            writer.write(make_sample(number))
    inactive = {BUCKET: torch.zeros(GEOMETRY.latent_shape(BUCKET))}
    constants = Constants(inactive, torch.zeros(1, GEOMETRY.text_dim), torch.zeros(1, GEOMETRY.text_dim))
    write_dataset_info(folder, writer.shards, encoder={}, settings={}, geometry=GEOMETRY, constants=constants)


def allocate_batch() -> dict[str, Tensor]:
    """Return memory for one sample, already touched."""
    return {name: torch.zeros_like(tensor) for name, tensor in sample_tensors(make_sample(0)).items()}


def fill(batch: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Copy a sample's tensors; this is the one copy."""
    for name, place in batch.items():
        place.copy_(tensors[name])


def read_webdataset(folder: Path, seed: int, batch: dict[str, Tensor]) -> int:
    """Deliver all samples through webdataset; return how many there were."""
    shards = sorted(map(str, folder.glob("*.tar")))
    dataset: Any = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=seed, empty_check=False)
    dataset = dataset.shuffle(16).decode(webdataset.handle_extension("safetensors", load), only=["safetensors"])
    count = 0
    for sample in dataset:
        fill(batch, sample["safetensors"])
        count += 1
    return count


def read_ours(reader: ShardReader, seed: int, batches: list[dict[str, Tensor]]) -> int:
    """Deliver all samples through `ShardReader` a few times, by a thread for every batch; return how many there were.

    One pass takes less than a tenth of a second; several last about as long as one of webdataset's.
    """
    generator = torch.Generator().manual_seed(seed)
    order = [n for _ in range(NUM_PASSES) for n in torch.randperm(len(reader), generator=generator).tolist()]

    def deliver(batch: dict[str, Tensor], numbers: list[int]) -> int:
        for number in numbers:
            fill(batch, reader.read_tensors(number))
        return len(numbers)

    parts = [order[first :: len(batches)] for first in range(len(batches))]
    if len(batches) == 1:
        return deliver(batches[0], order)
    with ThreadPoolExecutor(len(batches)) as threads:
        return sum(threads.map(deliver, batches, parts))


def samples_per_second(read: Callable[..., int], *arguments: Any) -> float:
    """Time a read."""
    since = time.perf_counter()
    return read(*arguments) / (time.perf_counter() - since)


def main() -> None:
    """Write a dataset, read it both ways in turn, and print samples per second and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder, arguments.num_samples)
        megabytes = (folder / "shard-000000.tar").stat().st_size / 16e6
        reader = ShardReader(name)
        batches = [allocate_batch(), allocate_batch()]
        since = time.perf_counter()
        for number in range(len(reader)):
            reader.read_tensors(number)
        print(f"{len(reader)} samples of {megabytes:.1f} MB; verified in {time.perf_counter() - since:.2f} s, once")
        rates: dict[str, list[float]] = {"webdataset": [], "ours, 1 thread": [], "ours, 2 threads": []}
        for repeat in range(arguments.repeats + 1):
            found = {
                "webdataset": samples_per_second(read_webdataset, folder, repeat, batches[0]),
                "ours, 1 thread": samples_per_second(read_ours, reader, repeat, batches[:1]),
                "ours, 2 threads": samples_per_second(read_ours, reader, repeat, batches),
            }
            for way, rate in found.items():
                if repeat:  # the first round warms up
                    rates[way].append(rate)
        base = statistics.median(rates["webdataset"])
        for way, values in rates.items():
            middle = statistics.median(values)
            spread = f"{min(values):,.0f} to {max(values):,.0f}"
            print(f"{way:16s} {middle:8,.0f} samples/s ({spread})  {middle / base:5.1f} x webdataset")
        print(f"the target is {TARGET_RATIO} x")


if __name__ == "__main__":
    main()
