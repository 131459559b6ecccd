"""Frozen blocks that wait in CPU memory and are on the device only while they compute, for bases larger than the GPU.

diffusers' group offloading does not serve training: it follows the order of the forward pass, its hook that takes a
block away does not run when checkpointing stops a recomputation early, and it puts back weights as they were at first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes

NUM_SLOTS = 2


class BlockSwap:
    """Keeps the weights of frozen blocks in CPU memory and copies each to the device ahead of its use.

    The device has room for two of them: one computes while the next is copied, in a stream of its own and from pinned
    memory. Forward passes go up and backward passes down, so the last blocks of one are there for the other. Nothing is
    copied back, for frozen weights do not change. On a CPU the copies are made as well, so that all else is the same.
    Overlap on CUDA is untested.

    Args:
        blocks: In the order in which they compute; all alike, all frozen. From now on they stay where they are when the
            model around them is moved.
        keeps_weights: Whether autograd keeps weights for the backward pass; with checkpointing it does not.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, keeps_weights: bool) -> None:
        assert not any(parameter.requires_grad for block in blocks for parameter in block.parameters())
        self._keeps_weights = keeps_weights
        self._parameters = [list(block.parameters()) for block in blocks]
        self._hosts = [[_pinned(parameter) for parameter in parameters] for parameters in self._parameters]
        self._slots = [_Slot() for _ in range(min(NUM_SLOTS, len(blocks)))]
        self._stream: torch.cuda.Stream | None = None
        self.num_copies = 0
        for place, block in enumerate(blocks):
            # What a module's call comes to: the copies stay outside of `forward`, which may be compiled.
            block._compiled_call_impl = partial(self._run, place, block._call_impl)
            block.__dict__["_apply"] = partial(_stay, block)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is swapped."""
        return [parameter for parameters in self._parameters for parameter in parameters]

    @property
    def resident_bytes(self) -> int:
        """Bytes that swapped blocks take on the device."""
        return sum(tensor.nbytes for slot in self._slots for tensor in slot.tensors)

    @property
    def host_bytes(self) -> int:
        """Bytes that they take in CPU memory."""
        return sum(tensor.nbytes for host in self._hosts for tensor in host)

    def _run(self, place: int, run: Callable[..., Any], *args: Any) -> Any:
        self._use(place, args[0].device)
        if not (self._keeps_weights and torch.is_grad_enabled()):
            return run(*args)
        with saved_tensors_hooks(partial(self._pack, place), self._unpack):
            return run(*args)

    def _use(self, place: int, device: torch.device) -> None:
        """Have a block's weights on the device, and start to copy those that are needed next."""
        self._copy(place, device)
        if self._stream is not None:
            torch.cuda.current_stream(device).wait_stream(self._stream)
        backward = torch._C._current_graph_task_id() != -1
        following = place - 1 if backward else place + 1
        if 0 <= following < len(self._hosts):
            self._copy(following, device)

    @torch.no_grad()
    def _copy(self, place: int, device: torch.device) -> None:
        slot = self._slots[place % NUM_SLOTS]
        if slot.place == place:
            return
        if slot.place is not None:
            _point(self._parameters[slot.place], self._hosts[slot.place])
        with _disable_current_modes():  # selective checkpointing would take the copies for the block's own operators
            slot.make(self._hosts[place], device)
            self._fill(slot, self._hosts[place], device)
        slot.place = place
        self.num_copies += 1
        _point(self._parameters[place], slot.tensors)

    def _fill(self, slot: "_Slot", hosts: list[Tensor], device: torch.device) -> None:
        if device.type != "cuda":
            slot.fill(hosts)
            return
        self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # all that has used the slot so far was given to the device before this
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            slot.fill(hosts)

    def _pack(self, place: int, saved: Tensor) -> "Tensor | _Kept":
        """Note which weight autograd wants to keep, in its place: another block's will lie there by then."""
        position = self._slots[place % NUM_SLOTS].positions.get(saved.untyped_storage().data_ptr())
        if position is None:
            return saved
        assert saved.dtype == self._hosts[place][position].dtype
        return _Kept(place, position, saved.device, saved.shape, saved.stride(), int(saved.storage_offset()))

    def _unpack(self, kept: "Tensor | _Kept") -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        self._use(kept.place, kept.device)
        tensor = self._slots[kept.place % NUM_SLOTS].tensors[kept.position]
        return tensor.as_strided(kept.shape, kept.stride, kept.offset)


class _Slot:
    """Memory on the device for one block's weights."""

    def __init__(self) -> None:
        self.place: int | None = None
        self.tensors: list[Tensor] = []
        self.positions: dict[int, int] = {}

    def make(self, hosts: list[Tensor], device: torch.device) -> None:
        """Allocate it, unless that is done."""
        if not self.tensors:
            with torch.inference_mode(False):  # a validation may come before training
                self.tensors = [torch.empty_like(host, device=device, pin_memory=False) for host in hosts]
            self.positions = {t.untyped_storage().data_ptr(): i for i, t in enumerate(self.tensors)}

    def fill(self, hosts: list[Tensor]) -> None:
        """Copy a block's weights into it."""
        for tensor, host in zip(self.tensors, hosts, strict=True):
            tensor.copy_(host, non_blocking=True)


@dataclass(frozen=True)
class _Kept:
    """A view of a swapped weight that the backward pass will need."""

    place: int
    position: int
    device: torch.device
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def check_num_swapped(num_swapped: int, num_blocks: int) -> None:
    """Refuse to swap more main blocks than there are.

    Raises:
        ValueError: They are more, or fewer than none.
    """
    if not 0 <= num_swapped <= num_blocks:
        raise ValueError(f"blocks.swap must be from 0 to {num_blocks}, the model's main blocks, got {num_swapped}")


def swapped_places(num_blocks: int, num_swapped: int) -> list[int]:
    """Return which blocks are swapped: evenly spread, so that those in between give the copies time."""
    return [number * num_blocks // num_swapped for number in range(num_swapped)]


def swap_blocks(transformer: Any, num_swapped: int, *, keeps_weights: bool) -> BlockSwap:
    """Swap so many of the main blocks; call it last, once they are compiled or quantized.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``, its main blocks frozen.
        num_swapped: From 1 to the number of main blocks.
        keeps_weights: As in `BlockSwap`.
    """
    blocks = list(transformer.blocks)
    return BlockSwap([blocks[place] for place in swapped_places(len(blocks), num_swapped)], keeps_weights=keeps_weights)


def _pinned(parameter: nn.Parameter) -> Tensor:
    if torch.cuda.is_available():
        parameter.data = parameter.data.pin_memory()
    return parameter.data


def _point(parameters: list[nn.Parameter], tensors: list[Tensor]) -> None:
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data = tensor


def _stay(block: nn.Module, fn: Callable[..., Any], recurse: bool = True) -> nn.Module:
    return block
