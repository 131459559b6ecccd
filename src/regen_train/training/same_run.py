"""Is a checkpoint of the very run that loads it?"""

from collections.abc import Mapping
from typing import Any

_BASE = ("base_sha256", "trainable")
_LORA = ("rank", "alpha", "targets", "use_dora", "use_rslora")
_RUN = ("variant", "recipe")


def check_same_run(stated: Mapping[str, Any], ours: Mapping[str, Any], *, lora: bool, continues: bool) -> None:
    """Refuse a checkpoint of another run.

    Args:
        stated: What the checkpoint states of the run that wrote it.
        ours: What this run states of itself.
        lora: Whether a LoRA is what learns.
        continues: Whether the run is trained on, and not only measured.

    Raises:
        ValueError: They differ; names every difference.
    """
    names = _BASE + (_LORA if lora else ()) + (_RUN if continues else ())
    faults = [
        f"{name}: the checkpoint has {stated.get(name)!r}, this run {ours[name]!r}"
        for name in names
        if stated.get(name) != ours[name]
    ]
    if faults:
        raise ValueError(
            f"the checkpoint is of another run (base {stated.get('base_name')!r}):\n  "
            + "\n  ".join(faults)
            + "\nGive it the model and data options it was trained with; to train on with others, start a new run "
            "from its weights with model.lora.init and the adapter beside the checkpoint"
        )
