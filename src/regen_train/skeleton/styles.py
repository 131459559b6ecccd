"""The three ways a skeleton is drawn, and how wide at which size."""

from dataclasses import dataclass
from typing import Literal

SkeletonStyle = Literal["regenhuman", "vace", "controlnet"]

FULL_LINE_WIDTH = 8.0
"""Pixels: width of a limb in ControlNet's drawer, at the size it draws at (an ellipse of half-width 4)."""


@dataclass(frozen=True)
class StyleRules:
    """What a style draws and at which size.

    Args:
        hands: Whether hands are drawn.
        reversed_channels: Whether red and blue of ControlNet's table are exchanged in the RGB result.
        native_short_side: Short side of the canvas on which limbs are 8 pixels wide; None where it is the picture's
            own, whatever its size.
        resampled: Whether the drawing is made at that size and resized, which softens its edges.
    """

    hands: bool
    reversed_channels: bool
    native_short_side: int | None
    resampled: bool


STYLES: dict[str, StyleRules] = {
    # ReGenHuman's release: DWPose's drawer at frame size, saved as BGR.
    "regenhuman": StyleRules(hands=True, reversed_channels=True, native_short_side=None, resampled=False),
    # VACE's pretraining: body and face on a canvas with short side 1024, resized by area, channels flipped at the end.
    "vace": StyleRules(hands=False, reversed_channels=True, native_short_side=1024, resampled=True),
    # controlnet_aux: the same drawer on a canvas with short side 512, channels as in its table.
    "controlnet": StyleRules(hands=True, reversed_channels=False, native_short_side=512, resampled=False),
}


def default_line_width(style: SkeletonStyle, height: int, width: int) -> float:
    """Return the width of a limb, in pixels of a height x width picture, that the style's original tool gives there.

    To draw at another size than the source, take it at the source's size and multiply by the resizing's scale.
    """
    native = STYLES[style].native_short_side
    return FULL_LINE_WIDTH if native is None else FULL_LINE_WIDTH * min(height, width) / native
