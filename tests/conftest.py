"""Fixtures shared by all tests; everything is built here, nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from regen_train.draws import generator_for
from regen_train.encoders import load_vae
from regen_train.schema import Bucket, ConditionLatents, Sample
from regen_train.shards import Constants, ShardWriter, fingerprint_of, write_dataset_info
from regen_train.toy.tiny import build_tiny_wan_vace

settings.register_profile("repeatable", derandomize=True)  # every run tries the same examples
settings.load_profile("repeatable")

ENCODER_EXTRAS = {"text_encoder_sha256": "none", "note": "random latents"}
SETTINGS = {"fps": 7.5, "skeleton_style": "regenhuman", "vace_mask": "ones"}
BUCKETS = (Bucket(5, 32, 32), Bucket(5, 32, 48))
TINY_CONFIG = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Leave the group of processes that a run joined, even one of itself: later runs would be distributed, too."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Wan VACE pipeline folder."""
    return build_tiny_wan_vace(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Twenty samples of random latents in two buckets, with two conditions, as for `tiny_model`."""
    return write_random_dataset(tmp_path_factory.mktemp("tiny") / "dataset", tiny_model)


def write_random_dataset(folder: Path, model: Path, *, num_samples: int = 20) -> Path:
    """Write a dataset whose latents can be learned: each is its condition, turned around, with a little noise."""
    vae = load_vae(str(model))
    encoder = {"vae_sha256": vae.sha256, **ENCODER_EXTRAS}
    fingerprints = {"encoder": fingerprint_of(encoder), "settings": fingerprint_of(SETTINGS)}
    with ShardWriter(folder, max_samples=8) as writer:
        for number in range(num_samples):
            bucket = BUCKETS[number % 5 == 0]
            generator = generator_for(0, number, "sample")
            shape = vae.geometry.latent_shape(bucket)
            human, everything, noise = (torch.randn(shape, generator=generator) for _ in range(3))
            sample = Sample(
                key=f"sample-{number:03d}",
                bucket=bucket,
                latents=0.1 * noise - human,
                conditions={"structhuman": ConditionLatents(human), "structall": ConditionLatents(everything)},
                human_coverage=torch.randint(0, 256, shape[1:], generator=generator, dtype=torch.uint8),
                prompt_embeds=torch.randn(number % 7 + 1, vae.geometry.text_dim, generator=generator),
                info={"fps": 7.5, "guard": {"verdict": "unchecked"}, "fingerprints": {**fingerprints, "source": "0"}},
            )
            writer.write(sample)
    constants = Constants(
        inactive={bucket: vae.inactive_constant(bucket) for bucket in BUCKETS},
        empty_prompt=torch.zeros(1, vae.geometry.text_dim),
        negative_prompt=torch.ones(2, vae.geometry.text_dim),
    )
    write_dataset_info(
        folder, writer.shards, encoder=encoder, settings=SETTINGS, geometry=vae.geometry, constants=constants
    )
    return folder


@pytest.fixture
def quick_arguments(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> list[str]:
    """The options that make ``regen_train fit`` run on the tiny model and dataset."""
    return [
        *("--config", str(TINY_CONFIG)),
        *("--model.pretrained", str(tiny_model)),
        *("--data.path", str(tiny_dataset)),
        *("--trainer.default_root_dir", str(tmp_path / "run")),
        *("--preview.num_clips", "0"),
        *("--trainer.logger", "false"),
    ]
