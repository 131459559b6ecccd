"""Small random datasets for the tests of shards and data."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regen_train.schema import Bucket, ConditionLatents, Geometry, Sample
from regen_train.shards import Constants, DatasetInfo, ShardWriter, fingerprint_of, write_dataset_info

GEOMETRY = Geometry(latent_channels=4, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=8)
SMALL = Bucket(9, 32, 48)
SMALLER = Bucket(5, 32, 32)
ENCODER = {"pretrained": "toy", "vae_sha256": "ab" * 32}
SETTINGS = {"fps": 7.5, "num_frames": 9, "conditions": ["structhuman", "structall"]}


def make_sample(
    number: int,
    *,
    bucket: Bucket = SMALL,
    conditions: Iterable[str] = ("structhuman", "structall"),
    masked: bool = False,
    encoder: dict[str, str] = ENCODER,
    prompt_tokens: int = 5,
) -> Sample:
    """Return a random sample that `number` alone decides."""
    generator = torch.Generator().manual_seed(number)
    c, f, h, w = GEOMETRY.latent_shape(bucket)

    def latents(frames: int = f) -> Tensor:
        return torch.randn(c, frames, h, w, generator=generator).half()

    def condition() -> ConditionLatents:
        if not masked:
            return ConditionLatents(latents())
        mask = torch.rand(GEOMETRY.mask_channels, f, h, w, generator=generator) > 0.5
        return ConditionLatents(latents(), latents(), mask, latents(1))

    return Sample(
        key=f"clip-{number:04d}",
        bucket=bucket,
        latents=latents(),
        conditions={name: condition() for name in conditions},
        human_coverage=torch.randint(0, 256, (f, h, w), dtype=torch.uint8, generator=generator),
        prompt_embeds=torch.randn(prompt_tokens, GEOMETRY.text_dim, generator=generator).half(),
        info={
            "fps": 7.5,
            "guard": {"verdict": "pass"},
            "fingerprints": {
                "encoder": fingerprint_of(encoder),
                "settings": fingerprint_of(SETTINGS),
                "source": f"{number:064x}",
            },
        },
    )


def make_constants(buckets: Iterable[Bucket] = (SMALL,)) -> Constants:
    """Return constants that can be told from everything else."""
    inactive = {bucket: torch.full(GEOMETRY.latent_shape(bucket), 0.25) for bucket in buckets}
    return Constants(inactive, torch.full((1, 8), 0.5), torch.full((3, 8), -0.5))


def write_dataset(folder: Path, samples: Iterable[Sample], *, max_samples: int = 3) -> DatasetInfo:
    """Write samples as a dataset."""
    samples = list(samples)
    with ShardWriter(folder, max_samples=max_samples) as writer:
        for sample in samples:
            writer.write(sample)
    return write_dataset_info(
        folder,
        writer.shards,
        encoder=ENCODER,
        settings=SETTINGS,
        geometry=GEOMETRY,
        constants=make_constants({sample.bucket for sample in samples}),
    )


class Bomb:
    """A pickle that shows when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


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
