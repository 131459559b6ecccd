"""What goes to the encoding stage and comes back from it; all of it may travel between machines."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regen_train.preparation.ledger import Status
from regen_train.preparation.probe import Probed
from regen_train.pretrained import Precision
from regen_train.schema import Geometry


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoders, and how they run.

    Args:
        pretrained: A diffusers folder or a hub id.
        revision: Branch, tag or commit of a hub id.
        dtype: Precision of the text encoder.
        tiling: Whether the VAE tiles space.
        fingerprint: What they are, by content.
        geometry: How they fold pixels.
    """

    pretrained: str
    revision: str | None
    dtype: Precision
    tiling: bool
    fingerprint: Mapping[str, str]
    geometry: Geometry


@dataclass(frozen=True)
class EncodeJob:
    """A clip to be encoded.

    Args:
        clip: The video file.
        signals: The folder of its signals.
        probed: What it is.
        released: Key to fingerprint of the doubtful windows that a person has released.
    """

    clip: Path
    signals: Path
    probed: Probed
    released: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowResult:
    """What became of one window.

    Args:
        key: The key of its sample.
        fingerprint: Of its entry in the work folder.
        first_frame: Number of its first source frame.
        last_frame: Number of its last.
        status: ``ok``: encoded; ``review`` or ``rejected`` by the gate.
        reason: Why not, in words.
        verdict: The gate's report.
        made: Whether it was encoded now.
        found: What a release would have to name; empty where the sample was there already.
    """

    key: str
    fingerprint: str
    first_frame: int
    last_frame: int
    status: Status
    reason: str
    verdict: Mapping[str, Any]
    made: bool
    found: str = ""


@dataclass(frozen=True)
class ClipResult:
    """What became of a clip.

    Args:
        bucket: Shape of its windows.
        notes: What a person should know.
        windows: Its windows, in order.
        seconds: Time by step.
    """

    bucket: str
    notes: tuple[str, ...]
    windows: tuple[WindowResult, ...]
    seconds: Mapping[str, float]

    def dump(self) -> str:
        """Return it as one JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "ClipResult":
        """Read what `dump` wrote."""
        content = json.loads(text)
        windows = tuple(WindowResult(**window) for window in content["windows"])
        return cls(content["bucket"], tuple(content["notes"]), windows, content["seconds"])
