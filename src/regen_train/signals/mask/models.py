"""Load the models of transformers that mask extractors use, and say what to do where one cannot be had."""

from typing import Any

from regen_train.pretrained import PretrainedFolder, model_revision, read_config, resolve_model


def find_model(pretrained: str, revision: str | None, *, model_type: str, alternatives: str) -> PretrainedFolder:
    """Return the folder of a model, downloaded if need be.

    Args:
        pretrained: A folder, or a hub id.
        revision: Branch, tag or commit on the hub.
        model_type: What its config.json must say.
        alternatives: What a user may take instead, for the error.

    Raises:
        FileNotFoundError: It cannot be had; says what to do, and what else there is.
        ValueError: It is another model.
    """
    try:
        folder = resolve_model(pretrained, revision)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or use {alternatives}") from error
    found = read_config(folder.path / "config.json").get("model_type")
    if found != model_type:
        raise ValueError(
            f"{pretrained!r} must be a model of type {model_type}, its config.json says {found!r}; "
            f"take another one, or use {alternatives}"
        )
    return folder


def transformers_classes(*names: str, alternatives: str) -> list[Any]:
    """Return classes of transformers.

    Args:
        names: Of the classes.
        alternatives: What a user may take instead, for the error.

    Raises:
        ValueError: transformers is missing or too old.
    """
    try:
        import transformers

        return [getattr(transformers, name) for name in names]
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the package transformers is missing or too old ({error}): `pip install 'transformers>=5.0'`; "
            f"or use {alternatives}"
        ) from error


def describe_model(folder: PretrainedFolder) -> dict[str, Any]:
    """Return name and revision of a model, for `identity` of a source; reads a folder's weights once."""
    return {"weights": folder.name, "revision": model_revision(folder)}
