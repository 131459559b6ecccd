"""How the weights move."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW and its schedule.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
        warmup_steps: Optimizer steps of linear warm-up.
        schedule: What follows the warm-up, until ``max_steps``.
        final_lr: Learning rate at the end of ``linear`` and ``cosine``, as a share of ``lr``.
    """

    lr: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        faults = [f"{name} must not be negative" for name in ("lr", "weight_decay", "eps") if getattr(self, name) < 0]
        if self.warmup_steps < 0:
            faults.append("warmup_steps must not be negative")
        if not 0 <= self.final_lr <= 1:
            faults.append(f"final_lr is a share of lr, between 0 and 1; got {self.final_lr}")
        if faults:
            raise ValueError("; ".join(faults))

    def factor(self, step: int, max_steps: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0, as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant" or max_steps <= self.warmup_steps:
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / (max_steps - self.warmup_steps))
        falling = 1 - progress if self.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return self.final_lr + (1 - self.final_lr) * falling
