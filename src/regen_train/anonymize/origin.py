"""What a LoRA says of its training, and whether it may paint what is asked for."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from regen_train.adapter import Adapter
from regen_train.pretrained import TOY, resolve_folder
from regen_train.schema import Bucket

log = logging.getLogger(__name__)

_PAPER_BUCKET = Bucket(49, 480, 832)
FORM_FILE = "regen_train.json"
"""Beside a pipeline's ``model_index.json``, where its base model was trained on other clips than Wan's:
``{"bucket": "9x80x80", "settings": {"fps": 8.0, "line_width": 1.5}}``."""
# What composes a condition. A stand-in for depth is no part of it: that is asked for by name, each time.
_COMPOSING: Mapping[str, tuple[type, ...]] = {
    "fps": (int, float),
    "dilation": (int, NoneType),
    "line_width": (int, float, NoneType),
    **dict.fromkeys(("fill", "depth_fill", "depth_normalization", "skeleton_style", "vace_mask"), (str,)),
}


@dataclass(frozen=True)
class Origin:
    """What a model was trained on, as far as it is known.

    Args:
        bucket: The shape of its clips; of several the longest, and of these the largest.
        settings: How its conditions were composed: some of the fields of `preparation.DatasetSettings`.
        stated: Whether the LoRA said so itself; else this is what is usual.
    """

    bucket: Bucket = _PAPER_BUCKET
    settings: Mapping[str, Any] = field(default_factory=dict)
    stated: bool = False


def origin_of(pretrained: str, adapter: Adapter | None) -> Origin:
    """Return what the LoRA's metadata says of its dataset; else what the model's folder says, or what is usual for Wan.

    Raises:
        ValueError: One of them states a shape or a setting that is none.
    """
    settings = {} if adapter is None or adapter.metadata is None else adapter.metadata.settings
    dataset = settings.get("dataset")
    if isinstance(dataset, Mapping) and isinstance(dataset.get("settings"), Mapping) and dataset.get("buckets"):
        known = _composing(dataset["settings"], "the LoRA")
        return Origin(max(Bucket.parse(str(bucket)) for bucket in dataset["buckets"]), known, stated=True)
    return _form_of(pretrained) or Origin()


def _form_of(pretrained: str) -> Origin | None:
    """Read what a model's folder says of it; None where there is no folder, or it says nothing."""
    if pretrained != TOY and not Path(pretrained).expanduser().is_dir():
        return None
    file = resolve_folder(pretrained, revision=None, parts=()).path / FORM_FILE
    if not file.is_file():
        return None
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        return Origin(Bucket.parse(stated["bucket"]), _composing(stated["settings"], FORM_FILE))
    except (ValueError, KeyError, TypeError) as error:
        example = '{"bucket": "9x80x80", "settings": {"fps": 8.0, "line_width": 1.5}}'
        raise ValueError(f"{file} must be like {example}: {type(error).__name__} {error}") from error


def _composing(settings: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Return those of some settings that compose conditions."""
    known = {name: settings[name] for name in _COMPOSING if name in settings}
    faults = [f"{name} {value!r}" for name, value in known.items() if not isinstance(value, _COMPOSING[name])]
    if faults:
        raise ValueError(f"{who} states settings of its dataset that are none: {', '.join(faults)}")
    return known


def check_variant(adapter: Adapter | None, variant: str) -> None:
    """Refuse a LoRA that was trained on other conditions; warn where nothing is known of it.

    Raises:
        ValueError: It was trained on others.
    """
    if adapter is None:
        log.warning(
            "no --lora: a model into which none was merged does not know the condition %s, and may paint skeletons and "
            "gray shapes",
            variant,
        )
        return
    trained = None if adapter.metadata is None else adapter.metadata.variant
    if not trained:
        log.warning("the LoRA does not say which condition it was trained on; taken to be %s", variant)
        return
    # A mix is written as "0.5 structall + 0.5 structhuman".
    known = [part.split()[-1] for part in trained.split(" + ") if part.split()]
    if variant not in known:
        raise ValueError(
            f"the LoRA was trained on {' and '.join(known)}, not on {variant}, and would paint nonsense from it; give "
            f"--variant {known[0]}, or a --lora that was trained on {variant}"
        )
