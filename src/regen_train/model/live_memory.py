"""Bytes of tensors that are alive, counted where no allocator counts them: on a CPU."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages made while it is entered, however they are kept: by autograd, hooks or names.

    Tensors that were there before do not count, nor does what a compiled kernel or an operator uses inside. On a GPU
    ``torch.cuda.max_memory_allocated`` is the better instrument.

    Source: the method of PyTorch's ``torch.distributed._tools.mem_tracker``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count what it made."""
        for storage in _storages((args, kwargs)):
            self._note(storage, 0)  # a view of it is nothing new
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._note(storage, storage.nbytes())
        return out

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    """Yield what holds numbers: of a DTensor, or another wrapper, whose own storage is a mere size, what is inside."""
    for leaf in tree_leaves(values):
        if not isinstance(leaf, Tensor):
            continue
        wrapper: Any = leaf
        if is_traceable_wrapper_subclass(wrapper):
            names, _ = wrapper.__tensor_flatten__()
            yield from _storages([getattr(wrapper, name) for name in names])
        elif leaf.untyped_storage().device.type != "meta":
            yield leaf.untyped_storage()
