"""One part of the clips, for a job array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` parts.

    Args:
        index: From 0.
        count: How many parts there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"a shard is I/N with I from 0 to N-1, got {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``"3/16"``.

        Raises:
            ValueError: The text is nothing of that kind.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise ValueError(f"a shard is I/N, such as 0/16, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[_T]) -> list[_T]:
        """Return every ``count``-th item from ``index`` on."""
        return list(items[self.index :: self.count])
