"""What a LoRA says of its training, and whether it may paint what is asked for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from regen_train.adapter import Adapter
from regen_train.schema import Bucket

log = logging.getLogger(__name__)

_PAPER_BUCKET = Bucket(49, 480, 832)
_TOY_BUCKET, _TOY_SETTINGS = Bucket(9, 80, 80), {"fps": 8.0, "line_width": 1.5}
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
    """Return what the LoRA's metadata says of its dataset, or what is usual for the model where it does not say.

    Raises:
        ValueError: The metadata states a shape or a setting that is none.
    """
    settings = {} if adapter is None or adapter.metadata is None else adapter.metadata.settings
    dataset = settings.get("dataset")
    if isinstance(dataset, Mapping) and isinstance(dataset.get("settings"), Mapping) and dataset.get("buckets"):
        known = {name: dataset["settings"][name] for name in _COMPOSING if name in dataset["settings"]}
        faults = [f"{name} {value!r}" for name, value in known.items() if not isinstance(value, _COMPOSING[name])]
        if faults:
            raise ValueError(f"the LoRA states settings of its dataset that are none: {', '.join(faults)}")
        return Origin(max(Bucket.parse(str(bucket)) for bucket in dataset["buckets"]), known, stated=True)
    return Origin(_TOY_BUCKET, _TOY_SETTINGS) if pretrained == "toy" else Origin()


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
