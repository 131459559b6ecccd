"""All that the demo found, as one JSON file."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regen_train.demo.control import CaptionControl
from regen_train.demo.journal import Journal
from regen_train.demo.measure import Measurement
from regen_train.demo.settings import TOY_SAMPLING, DemoSettings
from regen_train.files import write_atomically

REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Report:
    """What the demo found.

    Args:
        settings: How much of everything.
        measurement: All figures.
        control: What one changed word changes.
        journal: Steps, seconds and memory.
    """

    settings: DemoSettings
    measurement: Measurement
    control: CaptionControl
    journal: Journal


def write_report(path: Path, report: Report) -> None:
    """Write all numbers; what is infinite or not a number becomes a word."""
    content = {
        "what": "a TOY: figures of a drawn world and a tiny model; they say nothing of real video",
        "settings": _plain(report.settings),
        "sampling": _plain(TOY_SAMPLING),
        "figures": _plain(report.measurement),
        "one_word_changed": _plain(report.control),
        "steps": [_plain(entry) for entry in report.journal.entries],
        "seconds": round(report.journal.seconds, 1),
        "peak_bytes": report.journal.peak_bytes,
    }
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return [_plain(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
