"""Does this dataset belong to this model?"""

import logging
from dataclasses import fields
from pathlib import Path

import torch

from regen_train.pretrained import read_safetensors, resolve_folder, state_sha256
from regen_train.schema import Geometry
from regen_train.shards import DatasetInfo

log = logging.getLogger(__name__)


def check_dataset(info: DatasetInfo, geometry: Geometry, pretrained: str, revision: str | None) -> None:
    """Refuse a dataset whose latents are not those of the model's VAE.

    Compares the geometry, and the hash of the VAE's weights wherever the model comes as a whole pipeline.

    Args:
        info: What the dataset states of itself.
        geometry: The transformer's.
        pretrained: What the model was loaded from.
        revision: Its revision on the hub.

    Raises:
        ValueError: They do not belong together; names each field, the dataset's value and the model's.
    """
    pairs = {
        f"geometry.{field.name}": (getattr(info.geometry, field.name), getattr(geometry, field.name))
        for field in fields(Geometry)
    }
    vae = vae_sha256(pretrained, revision)
    if vae is None:
        log.warning("%s: found no VAE, so cannot check that the dataset's latents are of its own", pretrained)
    else:
        pairs["encoder.vae_sha256"] = (info.encoder.get("vae_sha256"), vae)
    faults = [
        f"{name}: the dataset has {ours}, the model {theirs}"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    if faults:
        raise ValueError(
            f"the dataset was not encoded for model.pretrained={pretrained!r}: {'; '.join(faults)}; encode the clips "
            "again with this model's encoders, or train the model the dataset was made for"
        )


def vae_sha256(pretrained: str, revision: str | None) -> str | None:
    """Return the hash of the weights of the VAE that lies beside the model, None if there is none."""
    if pretrained.startswith("random:") or Path(pretrained).is_file():
        return None
    try:
        folder = resolve_folder(pretrained, revision=revision, parts=("vae",)).path / "vae"
        return state_sha256(read_safetensors(folder), dtype=torch.float32)
    except FileNotFoundError:
        return None
