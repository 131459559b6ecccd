"""The memory a run needs by its shapes, and which checkpointing policy fits the device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from regen_train.model import Upkeep, WanVace, estimate_bytes
from regen_train.model.checkpointing import Policy
from regen_train.model.memory import USABLE_SHARE, ModelBytes, candidate_policies, model_bytes

_GIB = 2**30
_NO_MORE = Upkeep()


@dataclass(frozen=True)
class Needs:
    """Estimated bytes of one process.

    Args:
        tokens: This process's of the largest clip, reference frame included.
        batch_size: Clips of one forward pass.
        dtype: Precision of the computation, and of frozen weights unless they are quantized.
        stored: Of the model and the optimizer.
        activations: What a step keeps besides, by checkpointing policy.
    """

    tokens: int
    batch_size: int
    dtype: torch.dtype
    stored: ModelBytes
    activations: Mapping[Policy, int]

    def total(self, policy: Policy) -> int:
        """Return all bytes under a policy."""
        return self.stored.total + self.activations[policy]

    def fitting(self, free: int) -> list[Policy]:
        """Return the policies that fit into so many bytes, the fastest first; a tenth is left to what nobody counts."""
        return [policy for policy in self.activations if self.total(policy) <= USABLE_SHARE * free]

    def shortage(self, free: int) -> str | None:
        """Return how much is lacking where no policy fits into so many bytes, None where one does."""
        if self.fitting(free):
            return None
        usable = f"{USABLE_SHARE * free / _GIB:.2f} GiB, nine tenths of what is free"
        least = list(self.activations)[-1]
        need = f"{self.total(least) / _GIB:.2f}"
        return f"by estimate no checkpointing policy fits {usable}: {least}, the least, takes {need}"

    def describe(self, *, free: int | None, device: str, policy: str) -> str:
        """Return the estimate in words.

        Args:
            free: Bytes that the process may fill; None where the device is not known.
            device: Its name.
            policy: The policy that is set.
        """
        kept = "  ".join(f"{name} {size / _GIB:.2f}" for name, size in self.activations.items())
        whole = "  ".join(f"{name} {self.total(name) / _GIB:.2f}" for name in self.activations)
        verdict = "" if free is None else f"; {self._verdict(free)}"
        stored = self.stored
        spread = f", and {stored.gathered / _GIB:.2f} whole at a time of those that are spread" * (stored.gathered > 0)
        return "\n".join(
            (
                f"before the run, by shapes alone, in {str(self.dtype).removeprefix('torch.')}, GiB of one process:",
                f"  tokens       {self.tokens:,} a clip; clips in one pass: {self.batch_size}",
                f"  weights      {stored.frozen / _GIB:.2f} frozen{spread}",
                f"  learning     {stored.learning / _GIB:.2f} weights, gradients, moments and copies, fp32",
                f"  activations  {kept}",
                f"  together     {whole}",
                f"  device       {device}" + ("" if free is None else f", {free / _GIB:.2f} free"),
                f"  checkpointing {policy} is set{verdict}",
            )
        )

    def _verdict(self, free: int) -> str:
        fitting = self.fitting(free)
        if not fitting:
            return "none fits"
        return f"{fitting[0]} is the fastest that fits; what fits: {', '.join(fitting)}"


def needs_of(model: WanVace, tokens: int, *, batch_size: int, device_type: str, upkeep: Upkeep = _NO_MORE) -> Needs:
    """Estimate what a run needs.

    Args:
        model: With weights, or an outline without any.
        tokens: This process's of the largest clip, reference frame included.
        batch_size: Clips of one forward pass.
        device_type: On ``cpu`` there is nowhere to offload to.
        upkeep: What is kept of what learns.
    """
    stored = model_bytes(model, upkeep=upkeep)
    policies = candidate_policies(model.block_options, device_type)
    activations = {
        policy: estimate_bytes(model, policy, tokens=tokens, batch=batch_size, upkeep=upkeep) - stored.total
        for policy in policies
    }
    return Needs(tokens, batch_size, model.dtype, stored, activations)
