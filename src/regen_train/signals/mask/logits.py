"""From a model's small mask logits to masks at a frame's size."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masks_of_logits(
    logits: Float[Tensor, "n h_low w_low"], size: tuple[int, int], threshold: float
) -> Bool[Tensor, "n h w"]:
    """Enlarge mask logits to a frame and keep what is surer than a threshold.

    Args:
        logits: Of n masks over the whole frame, squeezed to the model's shape.
        size: Height and width of the frame.
        threshold: Probability, above 0 and below 1.

    Raises:
        ValueError: The threshold lies elsewhere.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"mask_threshold must be above 0 and below 1, got {threshold}")
    large = torch.nn.functional.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]
    return large > math.log(threshold / (1 - threshold))
