"""A bar for each stage: clips a second, time left, and counts by what became of them."""

import json
from collections import Counter
from types import TracebackType
from typing import Any

from regen_train.preparation.ledger import LedgerRow


class StageProgress:
    """Show how far a stage is; on stderr, and only where somebody looks.

    Args:
        stage: Its name.
        total: Clips to be done.
    """

    def __init__(self, stage: str, total: int) -> None:
        from tqdm import tqdm

        self._counts: Counter[str] = Counter()
        # None: no bar where stderr is no terminal; logs get the table at the end.
        self._bar: Any = tqdm(total=total, desc=stage, unit="clip", disable=None, smoothing=0.1, dynamic_ncols=True)

    def __enter__(self) -> "StageProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, outcome: LedgerRow) -> None:
        """Count one more clip, and its windows if it has any."""
        if outcome.stage == "encode" and outcome.status == "ok":
            self._counts.update(window["status"] for window in json.loads(outcome.result)["windows"])
        else:
            self._counts[outcome.status] += 1
        self._bar.set_postfix_str(", ".join(f"{count} {name}" for name, count in self._counts.most_common()))
        self._bar.update()
