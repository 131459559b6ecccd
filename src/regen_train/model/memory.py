"""How much memory a training step takes under each checkpointing policy, and which policy fits."""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch
from torch import nn

from regen_train.model.block_options import BlockOptions
from regen_train.model.checkpointing import POLICIES, Policy
from regen_train.model.quantizing import frozen_bytes, frozen_linears
from regen_train.model.sharding import full_shape
from regen_train.model.wan_vace import WanVace

logger = logging.getLogger(__name__)

# The rest is for what no estimate sees: the allocator's gaps, libraries, communication buffers.
USABLE_SHARE = 0.9
_BYTES_PER_LEARNING = 16  # fp32 weight, gradient and two moments
_FP32 = 4


@dataclass(frozen=True)
class Upkeep:
    """What a run keeps of what learns besides weight, gradient and moments, and how many processes share all that.

    Args:
        num_shards: Processes over which FSDP2 spreads every weight.
        in_buckets: Whether gradients lie once more in the buckets that DDP sends.
        copies: Further fp32 copies of the weights.
    """

    num_shards: int = 1
    in_buckets: bool = False
    copies: int = 0

    @property
    def bytes_per_learning(self) -> int:
        """Bytes of a parameter that learns, over all processes that share it."""
        return _BYTES_PER_LEARNING + _FP32 * (self.in_buckets + self.copies)


_NO_MORE = Upkeep()


@dataclass(frozen=True)
class Workload:
    """The largest forward and backward pass to come, and where.

    Args:
        tokens: The transformer's sequence length on this process.
        batch: Samples in one pass.
        free_bytes: Memory that any process may fill, before the model is loaded.
        device_type: ``cuda``, ``cpu`` or another of PyTorch's.
        upkeep: What is kept of what learns.
    """

    tokens: int
    batch: int
    free_bytes: int
    device_type: str
    upkeep: Upkeep = _NO_MORE


@dataclass(frozen=True)
class _Coefficients:
    """Hidden states that one block keeps without checkpointing: ``fixed`` plus ``per_ffn`` x (ffn_dim / width)."""

    fixed: float
    per_ffn: float


# Counted by LiveMemory on a CPU; by bytes of the computation's precision and by whether a block's weights are frozen,
# carry a LoRA or learn themselves. Autocast keeps casts beside what it computes, so bf16 keeps more states than fp32.
_KEPT_PER_BLOCK: dict[tuple[int, Literal["frozen", "lora", "learning"]], _Coefficients] = {
    (2, "frozen"): _Coefficients(18.6, 1.0),
    (2, "lora"): _Coefficients(26.5, 2.0),
    (2, "learning"): _Coefficients(37.3, 2.7),
    (4, "frozen"): _Coefficients(12.3, 1.0),
    (4, "lora"): _Coefficients(15.8, 2.0),
    (4, "learning"): _Coefficients(22.3, 2.0),
}
_KEPT_INSTEAD: dict[Policy, float] = {"selective": 3.1, "full": 1.0, "offload": 0.0}
_OUTSIDE_BLOCKS = 6.0
# Gradients of one feed-forward layer on their way, x (ffn_dim / width).
_PASSING_PER_FFN = {2: 3.0, 4: 1.0}
# What `selective` need not make again of the block that is computed again.
_KEPT_ATTENTION = 4.0


@dataclass(frozen=True)
class ModelBytes:
    """What one process keeps of the model besides activations.

    Args:
        frozen: Weights that do not learn, as stored.
        learning: What learns: fp32 weights, gradients, two moments and what `Upkeep` adds.
        gathered: Of what is spread over processes, the part that is whole at a time.
    """

    frozen: int
    learning: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.frozen + self.learning + self.gathered


def model_bytes(model: WanVace, *, upkeep: Upkeep = _NO_MORE) -> ModelBytes:
    """Estimate what a process keeps besides activations, from sizes alone.

    Args:
        model: With its LoRA inside, if it has one.
        upkeep: What is kept of what learns. Where weights are spread, a process has whole at a time what is outside of
            blocks, one block and the next, and those two once more in the buffers they arrive in; and the gradients of
            one block and of what is outside, once more in the buffers they leave in.
    """
    options, transformer, shards = model.block_options, model.transformer, upkeep.num_shards
    frozen = frozen_bytes(model, options.quantize, swap=options.swap)
    learning = upkeep.bytes_per_learning * model.num_parameters().trainable
    if shards == 1:
        return ModelBytes(frozen, learning)
    blocks = (*transformer.vace_blocks, *transformer.blocks)
    weights, gradients = (
        [_whole_bytes(module, learning=only) for module in (transformer, *blocks)] for only in (False, True)
    )
    gathered = weights[0] - sum(weights[1:]) + 4 * max(weights[1:])
    gathered += 2 * (gradients[0] - sum(gradients[1:]) + max(gradients[1:]))
    return ModelBytes(-(-frozen // shards), -(-learning // shards), gathered)


def _whole_bytes(module: Any, *, learning: bool) -> int:
    """Return the bytes of a module's parameters, or of those that learn, of spread ones too as if each were whole."""
    parameters: list[nn.Parameter] = [p for p in module.parameters() if p.requires_grad or not learning]
    return sum(full_shape(parameter).numel() * parameter.element_size() for parameter in parameters)


def estimate_bytes(model: WanVace, policy: Policy, *, tokens: int, batch: int, upkeep: Upkeep = _NO_MORE) -> int:
    """Estimate a training process's memory on its device, from sizes alone.

    Weights as stored; 16 bytes for each learning parameter and what `Upkeep` adds; what the blocks keep; one block that
    is computed again with its gradients; and the hints' gradients, which wait until the last main block is through.
    Compiled blocks keep less, so the estimate is high for them.

    Args:
        model: With its LoRA inside, if it has one.
        policy: The checkpointing.
        tokens: The transformer's sequence length on this process.
        batch: Samples in one pass.
        upkeep: As for `model_bytes`.
    """
    hidden_state = batch * tokens * model.hidden_size * model.dtype.itemsize
    states = estimate_hidden_states(model, policy)
    return int(model_bytes(model, upkeep=upkeep).total + states * hidden_state + _made_weight(model))


def _made_weight(model: WanVace) -> int:
    """Return the bytes of the largest quantized weight while it is made: fp32, then the computation's precision."""
    if model.block_options.quantize == "none":
        return 0
    layers = frozen_linears(model.transformer).values()
    largest: int = max(layer.in_features * layer.out_features for layer in layers)
    return (4 + model.dtype.itemsize) * largest


def estimate_hidden_states(model: WanVace, policy: Policy) -> float:
    """Estimate the peak of a step's activations, in hidden states of batch x tokens x width."""
    transformer, size = model.transformer, model.dtype.itemsize
    ffn: float = transformer.config.ffn_dim / model.hidden_size
    num_vace: int = len(transformer.vace_blocks)
    # Nothing learns before the first hint, which is added after main block 0.
    num_main: int = len(transformer.blocks) - (model.trainable != "all")
    main = _KEPT_PER_BLOCK[size, "learning" if model.trainable == "all" else "frozen"]
    vace = _KEPT_PER_BLOCK[size, "lora" if model.trainable == "lora" else "learning"]
    main_states, vace_states = (block.fixed + block.per_ffn * ffn for block in (main, vace))
    around, passing = num_vace + _OUTSIDE_BLOCKS, _PASSING_PER_FFN[size] * ffn
    if policy == "none":
        return num_main * main_states + num_vace * vace_states + passing + around
    again = max(main_states, vace_states) + passing - (_KEPT_ATTENTION if policy == "selective" else 0)
    return (num_main + num_vace) * _KEPT_INSTEAD[policy] + again + around


def candidate_policies(blocks: BlockOptions, device_type: str) -> list[Policy]:
    """Return the policies that may be chosen, the fastest first.

    On a CPU ``offload`` would keep the same bytes in the same memory. ``selective`` is refused where swapped blocks are
    compiled.

    Args:
        blocks: What is done to the blocks.
        device_type: Where they compute.
    """
    left_out = {"offload": device_type == "cpu", "selective": blocks.compile and blocks.swap > 0}
    return [policy for policy in POLICIES if not left_out.get(policy, False)]


def choose_checkpointing(model: WanVace, workload: Workload) -> Policy:
    """Choose the fastest policy that fits by estimate, and log the choice with the estimates.

    Recomputing costs time and copying costs more, so the order is none, selective, full, offload.
    """
    candidates = candidate_policies(model.block_options, workload.device_type)
    needs = {
        policy: estimate_bytes(model, policy, tokens=workload.tokens, batch=workload.batch, upkeep=workload.upkeep)
        for policy in candidates
    }
    usable = USABLE_SHARE * workload.free_bytes
    fitting = [policy for policy in candidates if needs[policy] <= usable]
    chosen = fitting[0] if fitting else candidates[-1]
    stated = ", ".join(f"{policy} {need / 2**30:.2f}" for policy, need in needs.items())
    message = (
        f"checkpointing auto: {chosen}; estimated GiB for {workload.batch} x {workload.tokens:,} tokens: {stated}; "
        f"usable {usable / 2**30:.2f} of {workload.free_bytes / 2**30:.2f} free"
    )
    if fitting:
        logger.info(message)
    else:
        logger.warning(
            "%s; none fits by estimate: use smaller buckets or a smaller per_device_batch_size, or what `regen_train "
            "profile` lists",
            message,
        )
    return chosen


def free_bytes(device: torch.device, *, processes: int = 1) -> int:
    """Return the memory a process may fill: free on its GPU, or its share of what is available to CPUs.

    Args:
        device: Where the process computes.
        processes: How many share a CPU's memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) // processes
