"""Several processes on this machine that compute together over gloo."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing


def run_processes(count: int, function: Callable[..., None], folder: Path, *arguments: object) -> None:
    """Call ``function(*arguments)`` in new processes that are joined by torch.distributed; raise what one raises.

    Args:
        count: How many processes.
        function: Importable by name.
        folder: Where they find each other.
        arguments: Its arguments.
    """
    rendezvous = folder / f"{function.__name__}-{os.urandom(4).hex()}"
    torch.multiprocessing.spawn(_run, (count, str(rendezvous), function, arguments), nprocs=count)


def _run(rank: int, count: int, rendezvous: str, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    try:
        function(*arguments)
    finally:
        torch.distributed.destroy_process_group()


def mean_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes."""
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
