"""A dataset of random latents of one shape: it trains nothing, but costs what real clips of that shape cost."""

from collections.abc import Collection
from pathlib import Path

import torch

from regen_train.draws import generator_for
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket, ConditionLatents, Geometry, Sample
from regen_train.shards import Constants, ShardWriter, fingerprint_of, write_dataset_info

_SETTINGS = {"note": "random latents"}


def write_random_dataset(
    folder: Path, bucket: Bucket, geometry: Geometry, *, variants: Collection[str], num_samples: int, vae_sha256: str
) -> None:
    """Write a dataset.

    Args:
        folder: Where to.
        bucket: The shape of every clip.
        geometry: The model's.
        variants: Names of the conditions.
        num_samples: How many clips.
        vae_sha256: Of the model's VAE, so that the dataset is taken for its own.

    Raises:
        ValueError: The bucket does not fit the geometry; names the nearest that do.
    """
    encoder = {"vae_sha256": vae_sha256}
    fingerprints = {"encoder": fingerprint_of(encoder), "settings": fingerprint_of(_SETTINGS), "source": "0"}
    shape = geometry.latent_shape(bucket)
    with ShardWriter(folder) as writer:
        for number in range(num_samples):
            generator = generator_for(0, number, "random clip")
            writer.write(
                Sample(
                    key=f"clip-{number:06d}",
                    bucket=bucket,
                    latents=torch.randn(shape, generator=generator),
                    conditions={name: ConditionLatents(torch.randn(shape, generator=generator)) for name in variants},
                    human_coverage=torch.randint(0, 256, shape[1:], generator=generator, dtype=torch.uint8),
                    prompt_embeds=torch.randn(MAX_PROMPT_TOKENS, geometry.text_dim, generator=generator),
                    info={"fps": 8.0, "guard": {"verdict": "unchecked"}, "fingerprints": fingerprints},
                )
            )
    constants = Constants(
        inactive={bucket: torch.zeros(shape)},
        empty_prompt=torch.zeros(1, geometry.text_dim),
        negative_prompt=torch.zeros(1, geometry.text_dim),
    )
    write_dataset_info(
        folder, writer.shards, encoder=encoder, settings=_SETTINGS, geometry=geometry, constants=constants
    )
