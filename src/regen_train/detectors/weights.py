"""Weights of transformers' models, and what to do where there are none."""

from typing import Any

from regen_train.pretrained import PretrainedFolder, model_revision, resolve_model


def find_model(pretrained: str, revision: str | None, *, alternatives: str) -> PretrainedFolder:
    """Return the folder of a model, downloading it if need be.

    Raises:
        FileNotFoundError: It cannot be had; says why, how to get it, and what else there is.
    """
    try:
        return resolve_model(pretrained, revision)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or use {alternatives}") from error


def describe_model(folder: PretrainedFolder) -> dict[str, Any]:
    """Return name and revision of weights, for `identity`."""
    return {"weights": folder.name, "revision": model_revision(folder)}
