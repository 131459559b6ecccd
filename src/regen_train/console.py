"""What a command says on the way: the package's own log, on stderr, for as long as the command runs."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Show the package's log on stderr; leave logging as it was."""
    logger = logging.getLogger("regen_train")
    before = logger.handlers, logger.propagate, logger.level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
