"""What keeps an output from being written, told apart from the faults of clips."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from regen_train.preparation.engines import StorageError
from regen_train.shards.space import is_full, needs_space


@contextlib.contextmanager
def storing(path: Path, *, also_reads: bool = False) -> Iterator[None]:
    """Name the file and the way on if it cannot be written.

    Args:
        path: What is being written, under its final name.
        also_reads: The clip is read meanwhile, so that only a full disk is surely no fault of the clip.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with needs_space(path):
            yield
    except OSError as error:
        if also_reads and not (is_full(error) or is_full(error.__cause__ or error)):
            raise
        raise StorageError(str(error)) from error
