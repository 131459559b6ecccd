"""Where no checkpointing policy fits: the options and strategies under which one does, each with its estimate."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L

from regen_train.model import BlockOptions, WanVace, Workload, estimate_bytes
from regen_train.model.block_options import Quantize
from regen_train.model.checkpointing import Policy
from regen_train.model.memory import USABLE_SHARE
from regen_train.training import FullyShardedStrategy, VaceModule
from regen_train.training.strategy_checks import allows

_GIB = 2**30
_FEWER_BYTES: dict[Quantize, tuple[Quantize, ...]] = {
    "none": ("none", "int8", "nf4"),
    "int8": ("int8", "nf4"),
    "fp8": ("fp8", "nf4"),
    "nf4": ("nf4",),
}


@dataclass(frozen=True)
class _Fit:
    """What fits: the first of some numbers that does, under a policy, and its bytes."""

    number: int
    policy: Policy
    size: int


def remedies_of(model: WanVace, workload: Workload, *, trainer: L.Trainer, module: VaceModule) -> list[str]:
    """Return what would fit, in words with GiB: only what goes with the configuration, of each the least change.

    On a CPU that is quantizing alone: swapped blocks and other processes would take the same memory.

    Args:
        model: With weights, or an outline without any.
        workload: That does not fit; its tokens are those of one process.
        trainer: Of the run.
        module: What it would train.
    """
    run = _Run(model, workload, trainer, module)
    remedies = [run.by_blocks(kind) for kind in _FEWER_BYTES[module.blocks.quantize]]
    if workload.device_type != "cpu":
        remedies += [run.by_fsdp2(), run.by_context_parallel()]
    return [remedy for remedy in remedies if remedy is not None]


@dataclass(frozen=True)
class _Run:
    model: WanVace
    workload: Workload
    trainer: L.Trainer
    module: VaceModule

    def by_blocks(self, kind: Quantize) -> str | None:
        """Quantize to this, and swap no more blocks than are needed."""
        present = self.module.blocks
        most = present.swap if self.workload.device_type == "cpu" else len(self.model.transformer.blocks)
        options = [replace(present, quantize=kind, swap=swap) for swap in range(present.swap, most + 1)]
        allowed = [blocks for blocks in options if blocks != present and self._allows(blocks=blocks)]
        fit = self._first(range(len(allowed)), lambda number, policy: self._bytes(policy, blocks=allowed[number]))
        if fit is None:
            return None
        blocks = allowed[fit.number]
        changes = [f"--model.blocks.quantize {kind}"] * (kind != present.quantize)
        changes += [f"--model.blocks.swap {blocks.swap}"] * (blocks.swap != present.swap)
        return self._described(fit, " ".join(changes))

    def by_fsdp2(self) -> str | None:
        """Spread the weights over as many GPUs as there are, or else over more."""
        now = self.trainer.num_nodes * self.trainer.num_devices
        numbers = [now * more for more in (1, 2, 4, 8) if now * more > self.workload.upkeep.num_shards]
        if not allows(self.module, FullyShardedStrategy(), checkpointing="full"):
            return None
        fit = self._first(numbers, lambda number, policy: self._bytes(policy, shards=number))
        return None if fit is None else self._described(fit, f"--config strategy_fsdp2.yaml on {fit.number} GPUs")

    def by_context_parallel(self) -> str | None:
        """Have as few neighbours as fit share a clip."""
        heads, now = self.model.transformer.config.num_attention_heads, self.module.context_parallel
        numbers = [number for number in (2, 4, 8) if number > now and heads % number == 0]
        if not self._allows(context_parallel=2):
            return None
        fit = self._first(numbers, lambda number, policy: self._bytes(policy, together=number))
        if fit is None:
            return None
        more = f" --model.context_parallel {fit.number}" * (fit.number != 2)
        return self._described(fit, f"--config strategy_context_parallel.yaml{more}, {fit.number} GPUs a clip")

    def _described(self, fit: _Fit, how: str) -> str:
        added = f"--model.checkpointing {fit.policy} " * (self.module.checkpointing not in ("auto", fit.policy))
        return f"{fit.policy} with {added}{how}: {fit.size / _GIB:.1f}"

    def _first(self, numbers: Sequence[int], need: Callable[[int, Policy], int]) -> _Fit | None:
        """Return the first number that fits, each needing less than those before; offload where nothing else does."""
        usable = USABLE_SHARE * self.workload.free_bytes
        policies: tuple[Policy, ...] = ("full",) if self.workload.device_type == "cpu" else ("full", "offload")
        for policy in policies:

            def fits(number: int, policy: Policy = policy) -> bool:
                return need(number, policy) <= usable

            place = bisect_left(numbers, True, key=fits)
            if place < len(numbers):
                return _Fit(numbers[place], policy, need(numbers[place], policy))
        return None

    def _bytes(self, policy: Policy, *, blocks: BlockOptions | None = None, shards: int = 0, together: int = 0) -> int:
        model, upkeep, tokens = copy.copy(self.model), self.workload.upkeep, self.workload.tokens
        if blocks is not None:
            model.block_options = blocks
        if shards:
            upkeep = replace(upkeep, num_shards=shards, in_buckets=False)
        if together:
            tokens = -(-tokens * self.module.context_parallel // together)
        return estimate_bytes(model, policy, tokens=tokens, batch=self.workload.batch, upkeep=upkeep)

    def _allows(self, **changes: Any) -> bool:
        return allows(self.module, self.trainer.strategy, checkpointing="full", **changes)
