"""Keep the inputs of blocks in pinned CPU memory between forward and backward."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


class OffloadedInputs:
    """Recomputes blocks in the backward pass from inputs that waited in CPU memory.

    Of a block's arguments only the state that blocks hand on to each other travels; text, time and positions are the
    same tensors for all blocks and stay. On CUDA the copies run on a stream of their own: out while later blocks
    compute, and back one block ahead of the backward pass. On a CPU a copy is kept, so that all else is the same.
    """

    def __init__(self) -> None:
        self.num_copies = 0
        self._last: weakref.ref[_Copy] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def __call__(self, block: Any, *args: Any) -> Any:
        """Run one block of the transformer."""
        state = handed_on(block, args)
        address, shape = state.data_ptr(), state.shape
        del state  # the hook below lives as long as the graph, and would keep it on the device

        def pack(saved: Tensor) -> "Tensor | _Copy":
            return self._send(saved) if saved.data_ptr() == address and saved.shape == shape else saved

        with saved_tensors_hooks(pack, self._unpack):
            return checkpoint(block.__call__, *args, use_reentrant=False)

    def __deepcopy__(self, memo: Any) -> "OffloadedInputs":
        """Return a fresh one: copies on their way belong to the model that made them."""
        return type(self)()

    def _send(self, state: Tensor) -> "_Copy":
        copy = _Copy(state, self._stream(state.device), before=self._last)
        self._last = weakref.ref(copy)
        self.num_copies += 1
        return copy

    def _unpack(self, saved: "Tensor | _Copy") -> Tensor:
        return saved if isinstance(saved, Tensor) else saved.take()

    def _stream(self, device: torch.device) -> torch.cuda.Stream | None:
        if device.type != "cuda":
            return None
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]


class _Copy:
    """One tensor in CPU memory; ``before`` was sent just before it, so the backward pass needs it next."""

    def __init__(self, state: Tensor, stream: torch.cuda.Stream | None, *, before: "weakref.ref[_Copy] | None") -> None:
        self._device, self._stream, self._before = state.device, stream, before
        self._coming: Tensor | None = None
        if stream is None:
            self._host = state.detach().to("cpu", copy=True)
            return
        self._host = torch.empty_like(state, device="cpu", pin_memory=True, requires_grad=False)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._host.copy_(state.detach(), non_blocking=True)
        state.record_stream(stream)  # its memory is not used again before the copy is through

    def take(self) -> Tensor:
        """Return the tensor on its device, and start the way back of the one needed next."""
        if self._stream is None:
            return self._host.to(self._device)
        self.fetch()
        tensor, self._coming = self._coming, None
        assert tensor is not None
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._stream)
        tensor.record_stream(compute)
        before = self._before() if self._before is not None else None
        if before is not None:
            before.fetch()
        return tensor

    def fetch(self) -> None:
        """Start the way back to the device."""
        if self._stream is not None and self._coming is None:
            with torch.cuda.stream(self._stream):
                self._coming = self._host.to(self._device, non_blocking=True)


def handed_on(block: Any, args: tuple[Any, ...]) -> Tensor:
    """Return the argument that the block before made: a VACE block's third, a main block's first."""
    state: Tensor = args[2] if hasattr(block, "proj_in") else args[0]
    return state
