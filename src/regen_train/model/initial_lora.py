"""The LoRA file that training starts from: does it fit what is asked for, and the base?"""

import logging
from collections.abc import Mapping

from torch import Tensor

from regen_train.adapter import load_adapter
from regen_train.model.base import BaseInfo
from regen_train.model.lora import LoraSpec

logger = logging.getLogger(__name__)


def read_initial_lora(path: str, spec: LoraSpec, base: BaseInfo) -> Mapping[str, Tensor]:
    """Read the factors of ``spec.init``.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The file is no LoRA on VACE blocks, was trained on another base, or differs from ``spec`` in what
            decides its shapes or its strength; lists all differences.
    """
    adapter = load_adapter(path)
    faults = [
        f"{name} is {found} in the file, {asked} in the spec (set lora.{name} to {found})"
        for name, found, asked in (
            ("rank", adapter.rank, spec.rank),
            ("alpha", adapter.alpha, spec.effective_alpha),
            ("targets", adapter.targets, spec.targets),
            ("use_dora", adapter.use_dora, spec.use_dora),
            ("use_rslora", adapter.use_rslora, spec.use_rslora),
        )
        if found != asked
    ]
    known_base = adapter.metadata is not None and adapter.metadata.base_sha256 is not None
    if adapter.metadata is not None:
        try:
            adapter.metadata.check_base(base.name, base.sha256)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(f"lora.init {path} does not fit: {'; '.join(faults)}")
    if not known_base:
        logger.warning("%s does not say on which base it was trained; taken to be %s", path, base.name)
    return adapter.state
