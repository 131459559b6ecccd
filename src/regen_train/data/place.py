"""Which part of each global batch, and of the held-out samples, a process takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from regen_train.schema import Bucket


def check_groups(processes: int, together: int) -> None:
    """Check that processes can be divided into groups that compute each clip together.

    Args:
        processes: How many train.
        together: How many a group has.

    Raises:
        ValueError: They cannot.
    """
    if processes % together:
        raise ValueError(
            f"model.context_parallel: {together} processes are to compute each clip together, and {processes} cannot "
            f"be divided into groups of {together}; set trainer.devices x trainer.num_nodes to a multiple of "
            f"{together}, or model.context_parallel to 1"
        )


@dataclass(frozen=True)
class Place:
    """One process among those that train together.

    Args:
        rank: Of the process.
        world_size: Number of processes.
        per_device_batch_size: Samples of a microbatch on one process.
    """

    rank: int
    world_size: int
    per_device_batch_size: int

    def __post_init__(self) -> None:
        if self.per_device_batch_size < 1:
            raise ValueError(f"per_device_batch_size must be at least 1, got {self.per_device_batch_size}")
        assert 0 <= self.rank < self.world_size

    def offsets(self, microbatch: int) -> range:
        """Return which samples of a global batch the process takes in its ``microbatch``-th part of it, from 0."""
        first = (microbatch * self.world_size + self.rank) * self.per_device_batch_size
        return range(first, first + self.per_device_batch_size)

    def held_out_steps(self, buckets: Sequence[Bucket]) -> list[tuple[list[int], list[float]]]:
        """Cut held-out samples into the validation steps of the process.

        Every process gets as many steps, of equal batch size and of one bucket each. What is missing in a bucket's last
        step is filled with its other samples, at weight 0.

        Args:
            buckets: The bucket of each held-out sample.

        Returns:
            For each step the numbers of its samples and their weights.
        """
        steps = []
        for bucket in sorted(set(buckets)):
            numbers = [number for number, other in enumerate(buckets) if other == bucket]
            for microbatch in range(-(-len(numbers) // (self.world_size * self.per_device_batch_size))):
                places = self.offsets(microbatch)
                chosen = [numbers[place % len(numbers)] for place in places]
                steps.append((chosen, [float(place < len(numbers)) for place in places]))
        return steps

    def check_factors(self, global_batch_size: int, accumulate: int) -> None:
        """Check that processes x per-device batch x accumulation is the global batch size.

        Args:
            global_batch_size: Samples of one optimizer step, over all processes.
            accumulate: Microbatches of one optimizer step on one process.

        Raises:
            ValueError: It is not; says what would fit.
        """
        together = self.world_size * self.per_device_batch_size
        if together * accumulate == global_batch_size:
            return
        stated = (
            f"global_batch_size is {global_batch_size}, but {self.world_size} processes x per_device_batch_size "
            f"{self.per_device_batch_size} x accumulate_grad_batches {accumulate} = {together * accumulate}"
        )
        if global_batch_size % together == 0:
            raise ValueError(f"{stated}; set --trainer.accumulate_grad_batches {global_batch_size // together}")
        if global_batch_size % self.world_size == 0:
            sizes = _divisors(global_batch_size // self.world_size)
            raise ValueError(f"{stated}; set --data.per_device_batch_size to {sizes}, and accumulate to match")
        sizes = _divisors(global_batch_size)
        raise ValueError(f"{stated}; no accumulate_grad_batches fits: use {sizes} processes, or another batch size")


def _divisors(number: int) -> str:
    return " or ".join(str(divisor) for divisor in range(1, number + 1) if number % divisor == 0)
