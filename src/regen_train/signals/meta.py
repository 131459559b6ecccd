"""``signals.json``: what the signals of a clip were made from, and how far they reach."""

import json
import re
from pathlib import Path
from typing import Any

FILE = "signals.json"
MAX_BYTES = 1 << 20


def read_meta(path: Path) -> dict[str, Any]:
    """Read and check a ``signals.json``.

    Returns:
        All it says; ``num_frames`` is a positive int and ``source_sha256`` 64 lower-case hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too long, no JSON object, or lacks or misstates what it must say; names all faults.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE} at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} must be at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if type(meta) is not dict:  # exactly what JSON objects become
        raise ValueError(f"{path} must be a JSON object, got {type(meta).__name__}")
    faults = []
    frames, checksum = meta.get("num_frames"), meta.get("source_sha256")
    if type(frames) is not int or frames < 1:
        faults.append(f"num_frames must state how many frames the signals cover, got {frames!r}")
    if not isinstance(checksum, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
        faults.append(f"source_sha256 must be the clip's checksum, as sha256sum prints it, got {checksum!r}")
    if faults:
        raise ValueError(f"{path}: " + "; ".join(faults))
    return {**meta, "source_sha256": str(checksum).lower()}


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write a ``signals.json``; `read_meta` reads it."""
    path.write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
