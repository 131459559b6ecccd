"""What lies in a tar, by its headers alone; nothing is extracted and no member is opened."""

import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from regen_train.shards.checks import KEY_PATTERN

BLOCK_BYTES = 512
SUFFIXES = ("safetensors", "json")


@dataclass(frozen=True)
class Span:
    """A run of bytes in a tar.

    Args:
        offset: First byte, counted from the start of the tar.
        size: Number of bytes.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class Member:
    """One sample in a tar.

    Args:
        payload: Where its safetensors file lies.
        info: Where its JSON lies.
    """

    payload: Span
    info: Span


def list_members(file: BinaryIO, *, what: str) -> dict[str, Member]:
    """Return the samples of a shard by key, in the order in which they lie there.

    Args:
        file: The tar, opened for reading.
        what: The shard's name, for the error message.

    Raises:
        ValueError: The tar is damaged, or holds anything but pairs of ``KEY.json`` and ``KEY.safetensors`` as plain
            files: a link, a folder, a path that leaves the shard, a pickle. Names every fault; reads no such member.
    """
    spans: dict[str, dict[str, Span]] = {}
    faults = []
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                end = entry.offset_data + -(-entry.size // BLOCK_BYTES) * BLOCK_BYTES
                fault = _member_fault(entry)
                key, _, suffix = entry.name.partition(".")
                if fault is None and suffix in spans.get(key, {}):
                    fault = "stands twice"
                if fault:
                    faults.append(f"member {entry.name!r} {fault}")
                else:
                    spans.setdefault(key, {})[suffix] = Span(entry.offset_data, entry.size)
    except tarfile.TarError as error:
        faults.append(f"it is damaged or truncated after byte {end} ({error})")
    else:
        faults += _end_faults(file, end)
    faults += [f"sample {key!r} lacks its .{s}" for key, found in spans.items() for s in SUFFIXES if s not in found]
    if faults:
        raise ValueError(f"shard {what} is refused: " + "; ".join(faults[:20]))
    return {key: Member(found["safetensors"], found["json"]) for key, found in spans.items()}


def _member_fault(entry: tarfile.TarInfo) -> str | None:
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.sparse is not None:
        return "is not a plain file; links, folders and devices are never followed"
    key, _, suffix = entry.name.partition(".")
    if "/" in entry.name or "\\" in entry.name:
        return "has a path in its name; a shard is flat and nothing may lie outside it"
    if suffix not in SUFFIXES:
        return f"must end in .{' or .'.join(SUFFIXES)}; other formats, pickles above all, are never read"
    if not KEY_PATTERN.fullmatch(key):
        return "must be named by letters, digits, _ and -"
    return None


def _end_faults(file: BinaryIO, end: int) -> list[str]:
    """A whole tar ends in zeros, two blocks at least; `tarfile` itself accepts one cut off between members."""
    file.seek(0, 2)
    total = file.tell()
    if total < end:
        return [f"it is truncated: {total} bytes, its last member ends at byte {end}"]
    file.seek(end)
    tail = file.read(1 << 20)
    if len(tail) < 2 * BLOCK_BYTES:
        return [f"it is truncated: the end mark is missing after byte {end}"]
    if tail.strip(b"\0") or total > end + len(tail):
        return [f"something follows its last member, after byte {end}"]
    return []
