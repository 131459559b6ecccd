"""What a frame's numbers mean as colours, where the file says so and where it does not."""

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

logger = logging.getLogger(__name__)

# FFmpeg's AVColorSpace: 1 BT.709, 2 unspecified, 5 and 6 BT.601, 9 BT.2020; AVColorRange: 1 limited, 2 full.
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
_LIMITED, _FULL = 1, 2
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_HD_LINES = 720


@dataclass(frozen=True)
class ColourReading:
    """How to turn a frame into RGB.

    Args:
        matrix: swscale's number of the YUV matrix; None leaves it to the frame (known, or not YUV at all).
        value_range: 1 limited (16 to 235), 2 full; None leaves it to the frame.
    """

    matrix: int | None
    value_range: int | None


def read_colour(frame: Any, name: str) -> ColourReading:
    """Decide how to read a decoded frame; what had to be assumed is logged once a file.

    Unset metadata: BT.709 from 720 lines up, else BT.601; limited ("tv") range. Lines are those of the
    coded picture, before any turn.

    Args:
        frame: An ``av.VideoFrame``.
        name: The file, for the log.
    """
    _note_transfer(name, int(frame.color_trc))
    if frame.format.is_rgb or len(frame.format.components) < 3:
        return ColourReading(matrix=None, value_range=None)
    matrix = value_range = None
    assumed = []
    if int(frame.colorspace) == _UNSPECIFIED:
        matrix = _BT709 if frame.height >= _HD_LINES else _BT601
        assumed.append("BT.709" if matrix == _BT709 else "BT.601")
    if int(frame.color_range) not in (_LIMITED, _FULL):
        value_range = _FULL if frame.format.name.startswith("yuvj") else _LIMITED
        assumed.append("full range" if value_range == _FULL else "limited (tv) range")
    if assumed:
        _note_assumed(name, ", ".join(assumed))
    return ColourReading(matrix=matrix, value_range=value_range)


@lru_cache(maxsize=4096)
def _note_assumed(name: str, assumed: str) -> None:
    logger.info("%s does not say how its colours are coded; assuming %s", name, assumed)


@lru_cache(maxsize=4096)
def _note_transfer(name: str, transfer: int) -> None:
    if transfer in _HDR_TRANSFERS:
        logger.warning("%s is HDR (%s) and is read without tone mapping", name, _HDR_TRANSFERS[transfer])
