"""A window of a clip with everything that was made of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ComposedClip:
    """One window of a clip at the model's size.

    Args:
        frames: The real clip.
        conditions: Condition name to its video; no human pixel had a part in it.
        mask: Where people are: dilated, and every pixel that a masked source pixel had a part in.
        pose: The skeletons alone, on black.
    """

    frames: UInt8[Tensor, "t h w 3"]
    conditions: Mapping[str, UInt8[Tensor, "t h w 3"]]
    mask: Bool[Tensor, "t h w"]
    pose: UInt8[Tensor, "t h w 3"]
