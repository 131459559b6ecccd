"""What somebody does and where they stand; nothing of who they are."""

from dataclasses import dataclass
from typing import Literal

Action = Literal["stand", "walk", "wave", "squat", "raise", "give", "take"]
Side = Literal["left", "right"]

ACTIONS: tuple[Action, ...] = ("stand", "walk", "wave", "squat", "raise", "give", "take")

HORIZON, CAMERA_HEIGHT = 0.3, 0.8
"""Row of the horizon in frame heights; height of the camera in nominal heights of a person."""


@dataclass(frozen=True)
class Motion:
    """What one person does in a clip.

    Places are of the body's middle, in shares of the frame's width from its left edge; they may lie outside of it.

    Args:
        action: What they do.
        start: Place in the first frame they are present in.
        end: Place in the last one.
        size: Nominal height of a person there, in frame heights: 0.5 is far, 0.85 near.
        yaw: Where they face, degrees: 0 the camera, 90 the picture's right, 180 away.
        phase: Where in its cycle the movement starts, in [0, 1).
        cycles: How many cycles it goes through in the clip.
        side: The hand that waves.
        enter: First frame they are present in.
        leave: First frame they are gone again; None where they stay.
    """

    action: Action
    start: int | float
    end: int | float
    size: int | float
    yaw: int | float = 0.0
    phase: int | float = 0.0
    cycles: int | float = 1.0
    side: Side = "right"
    enter: int = 0
    leave: int | None = None


def ground_row(size: int | float) -> float:
    """Return the row, in frame heights, where somebody of this size stands."""
    return HORIZON + CAMERA_HEIGHT * size
