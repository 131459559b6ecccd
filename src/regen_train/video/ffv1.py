"""The checksums of ffv1: FFmpeg's decoder only logs a mismatch and goes on with a wrong picture."""

import zlib

# FFV1 takes CRC-32 with the highest bit first; zlib's has the lowest first, so the bits of each byte are turned around.
_TURNED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

# What the checksum starts with, and comes back to over an undamaged slice: error correction 1 and 2.
_REFERENCES = (0, int(f"{0x7A8C4079:032b}"[::-1], 2))

_FOOTER = 8
"""Bytes that end a slice: three of its size, one of status, four of its checksum."""


def checksums_hold(packet: bytes) -> bool | None:
    """Tell whether one coded ffv1 frame passes its own checksums; None where it carries none that can be found.

    Source: RFC 9043, section 4.9 (slice footer).
    """
    slices = _split(packet)
    if slices is None:
        return None
    turned = [part.translate(_TURNED) for part in slices]
    return any(all(_checksum(part, start) == start for part in turned) for start in _REFERENCES)


def _split(packet: bytes) -> list[bytes] | None:
    """Cut a frame into slices from its end; None where the sizes do not add up."""
    slices, end = [], len(packet)
    while end > _FOOTER:
        start = end - _FOOTER - int.from_bytes(packet[end - _FOOTER : end - _FOOTER + 3], "big")
        if start < 0:
            return None
        slices.append(packet[start:end])
        end = start
    return slices if slices and end == 0 else None


def _checksum(data: bytes, start: int) -> int:
    return zlib.crc32(data, start ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
