"""How the weights move."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from regen_train.training.muon import Muon

_HIDDEN = ("blocks.", "vace_blocks.")


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer and its schedule.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
        warmup_steps: Optimizer steps of linear warm-up.
        schedule: What follows the warm-up, until ``max_steps``.
        final_lr: Learning rate at the end of ``linear`` and ``cosine``, as a share of ``lr``.
        name: ``adamw``, or ``muon`` for the blocks' matrices and AdamW for the rest: for small models trained whole,
            not for a LoRA, whose factors it was not made for.
        muon_lr: Peak learning rate of the matrices under ``muon``.
    """

    lr: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_lr: float = 0.0
    name: Literal["adamw", "muon"] = "adamw"
    muon_lr: float = 0.02

    def __post_init__(self) -> None:
        faults = [
            f"{name} must not be negative"
            for name in ("lr", "muon_lr", "weight_decay", "eps")
            if getattr(self, name) < 0
        ]
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

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of what learns, by its names in the transformer."""
        if self.name == "muon":
            hidden = {
                name for name, weight in parameters.items()
                if name.startswith(_HIDDEN) and name.endswith(".weight") and weight.ndim == 2
            }  # fmt: skip
            return Muon(
                [weight for name, weight in parameters.items() if name in hidden],
                [weight for name, weight in parameters.items() if name not in hidden],
                lr=self.muon_lr,
                other_lr=self.lr,
                betas=self.betas,
                weight_decay=self.weight_decay,
                eps=self.eps,
            )
        optimizer = torch.optim.AdamW(
            list(parameters.values()),
            lr=self.lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )
        # else Lightning takes it to undo fp16's loss scale within its step, and refuses to clip gradients in bf16 too
        optimizer._step_supports_amp_scaling = False
        return optimizer
