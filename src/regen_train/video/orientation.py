"""How a coded picture must be turned and mirrored to stand upright."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Orientation:
    """A turn, then a mirroring.

    Args:
        quarter_turns: Counter-clockwise quarter turns, 0 to 3.
        mirrored: Whether left and right are exchanged after the turn.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    def apply(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Return the picture upright, in memory of its own."""
        upright = np.rot90(picture, self.quarter_turns)
        return np.ascontiguousarray(upright[:, ::-1] if self.mirrored else upright)

    def upright_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after the turn."""
        return (width, height) if self.quarter_turns % 2 else (height, width)


def read_orientation(frame: Any, path: str | Path) -> Orientation:
    """Read the display matrix of a decoded frame; none means upright.

    The matrix is three rows of (a, b, u), (c, d, v), (x, y, w) in fixed point, taking a coded position (p, q) to
    (a p + c q, b p + d q) on a screen whose second axis points down. FFmpeg's own reading of the angle ignores
    mirroring and would turn a mirrored picture upside down, so the matrix is read here.

    Args:
        frame: An ``av.VideoFrame``.
        path: The file, for the error.

    Raises:
        ValueError: The picture is turned by something other than quarter turns.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return Orientation()
    (a, b), (c, d) = matrix
    mirrored = a * d - b * c < 0
    # Mirroring after the turn negates the first screen axis; undo it to read the turn alone.
    a, c = (-a, -c) if mirrored else (a, c)
    for turns, expected in enumerate(((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))):
        if np.allclose((a, b, c, d), expected, atol=1e-3):
            return Orientation(quarter_turns=turns, mirrored=mirrored)
    raise ValueError(f"{path} is turned by {frame.rotation} degrees; only quarter turns can be undone without loss")


def _display_matrix(frame: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(side_data), dtype="<i4", count=9).reshape(3, 3)[:2, :2].astype(np.float64)
            scale = np.abs(values).max() or 1.0
            (a, b), (c, d) = (values / scale).tolist()
            return (a, b), (c, d)
    return None
