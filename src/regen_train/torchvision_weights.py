"""Weights of torchvision's detectors: its own download, or a file; tensors only, nothing else is unpickled."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_torchvision_weights(path: Path | None, published: Any, *, model: str, alternatives: str) -> dict[str, Tensor]:
    """Return a state dict.

    Args:
        path: A file as .pth or .safetensors; None takes torchvision's own, downloaded once and checked.
        published: The member of torchvision's weights enum that stands for its own.
        model: The model's name, for errors.
        alternatives: What else can be used, for errors.

    Raises:
        FileNotFoundError: The weights cannot be had; says how to get them, and what else there is.
        ValueError: The file holds something else than tensors, or is damaged.
    """
    if path is None:
        return _download(published, model, alternatives)
    if not path.is_file():
        raise FileNotFoundError(f"no weights of {model} at {path}; None downloads them; or use {alternatives}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        # torchvision publishes no other format.
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch tells of damage and pickles in a dozen types
        raise ValueError(f"{path} must hold tensors only, as torchvision publishes them: {error}") from error


def _download(published: Any, model: str, alternatives: str) -> dict[str, Tensor]:
    try:
        return dict(published.get_state_dict(map_location="cpu", progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"the weights of {model} cannot be downloaded ({error}): fetch {published.url} on a machine with a network "
            f"and pass it as `weights`; or use {alternatives}"
        ) from error
