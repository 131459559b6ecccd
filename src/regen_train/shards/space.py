"""A full disk, told with the file it stopped and the way on."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

REMEDY = "encoded samples are kept: free some space and run the same command again"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: BaseException) -> bool:
    """Return whether a disk or a quota that is too small is behind an error."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def needs_space(path: Path) -> Iterator[None]:
    """Name the file, and the remedy, if the disk or a quota is too small for it; the system's own error names neither.

    Args:
        path: What is being written, under its final name.

    Raises:
        OSError: There is no space left for it.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise OSError(f"{path} cannot be written: {os.strerror(error.errno or errno.ENOSPC)}; {REMEDY}") from error
