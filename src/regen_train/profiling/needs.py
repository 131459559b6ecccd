"""The memory a run needs by its shapes, and which checkpointing policy fits the device."""

from collections.abc import Mapping
from dataclasses import dataclass

from regen_train.model import WanVace, estimate_bytes
from regen_train.model.checkpointing import POLICIES, Policy
from regen_train.model.memory import USABLE_SHARE, learning_bytes
from regen_train.model.quantizing import frozen_bytes

_GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """Estimated bytes of one process.

    Args:
        tokens: Of the largest clip, reference frame included.
        batch_size: Clips of one forward pass.
        frozen: Weights that do not learn, as stored.
        learning: What learns: weights, gradients and the optimizer's moments.
        activations: What a step keeps besides, by checkpointing policy.
    """

    tokens: int
    batch_size: int
    frozen: int
    learning: int
    activations: Mapping[Policy, int]

    def total(self, policy: Policy) -> int:
        """Return all bytes under a policy."""
        return self.frozen + self.learning + self.activations[policy]

    def fitting(self, free: int) -> list[Policy]:
        """Return the policies that fit into so many bytes, the fastest first; a tenth is left to what nobody counts."""
        return [policy for policy in self.activations if self.total(policy) <= USABLE_SHARE * free]

    def describe(self, *, free: int, device: str, policy: str) -> str:
        """Return the estimate in words.

        Args:
            free: Bytes that the process may fill.
            device: Its name.
            policy: The policy that is set.
        """
        kept = "  ".join(f"{name} {size / _GIB:.2f}" for name, size in self.activations.items())
        whole = "  ".join(f"{name} {self.total(name) / _GIB:.2f}" for name in self.activations)
        fitting = self.fitting(free)
        if fitting:
            verdict = f"{fitting[0]} is the fastest that fits; what fits: {', '.join(fitting)}"
        else:
            verdict = "none fits; use smaller buckets, a smaller per_device_batch_size or more devices' memory"
        return "\n".join(
            (
                "before the run, by shapes alone, GiB of one process:",
                f"  tokens       {self.tokens:,} a clip; clips in one pass: {self.batch_size}",
                f"  weights      {self.frozen / _GIB:.2f} frozen",
                f"  learning     {self.learning / _GIB:.2f} weights, gradients and the optimizer's moments, fp32",
                f"  activations  {kept}",
                f"  together     {whole}",
                f"  device       {device}, {free / _GIB:.2f} free",
                f"  checkpointing {policy} is set; {verdict}",
            )
        )


def needs_of(model: WanVace, tokens: int, *, batch_size: int, device_type: str) -> Needs:
    """Estimate what a run needs.

    Args:
        model: With weights, or an outline without any.
        tokens: Of the largest clip, reference frame included.
        batch_size: Clips of one forward pass.
        device_type: On ``cpu`` there is nowhere to offload to.
    """
    options = model.block_options
    frozen = frozen_bytes(model, options.quantize, swap=options.swap)
    learning = learning_bytes(model)
    policies = [policy for policy in POLICIES if policy != "offload" or device_type != "cpu"]
    activations = {
        policy: estimate_bytes(model, policy, tokens=tokens, batch=batch_size) - frozen - learning
        for policy in policies
    }
    return Needs(tokens, batch_size, frozen, learning, activations)
