"""Look into a dataset: its latents decoded, as a person and the trainer see them."""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from regen_train.encoders import WanVae
from regen_train.schema import Sample
from regen_train.shards import DatasetInfo


def contact_sheet(sample: Sample, vae: WanVae, *, columns: int = 5) -> UInt8[Tensor, "h w 3"]:
    """Decode a sample into one picture: a row for the real clip, one for each condition, by name.

    Args:
        sample: As a reader gives it.
        vae: Of the model that the dataset was encoded with.
        columns: How many frames of the clip to show, evenly spread, the first and the last among them.
    """
    rows = [sample.latents, *(condition.reactive for _, condition in sorted(sample.conditions.items()))]
    spread = torch.linspace(0, sample.bucket.num_frames - 1, columns).round().long().tolist()
    shown = sorted(set(spread))  # a short clip may have fewer frames than columns
    pictures = torch.stack([vae.decode_video(latents.float())[shown] for latents in rows])
    return rearrange(pictures, "r t h w c -> (r h) (t w) c")


def check_vae(info: DatasetInfo, vae: WanVae) -> None:
    """Raise ValueError unless the dataset was encoded with this VAE."""
    stated = info.encoder.get("vae_sha256")
    if stated != vae.sha256:
        raise ValueError(
            f"the dataset was encoded with the VAE {stated}, this model's is {vae.sha256}; name the model that the "
            "dataset was prepared with"
        )


def write_sheet(path: Path, picture: UInt8[Tensor, "h w 3"]) -> None:
    """Write a picture as PNG."""
    from PIL import Image

    Image.fromarray(picture.numpy()).save(path)
