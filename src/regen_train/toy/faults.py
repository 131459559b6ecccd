"""Ways in which masks go wrong, done on purpose to good ones: what a gate must find."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.conditions import dilate

Masks = UInt8[Tensor, "t h w"]


@dataclass(frozen=True)
class Fault:
    """One way to spoil the masks of a clip.

    Args:
        name: What it is called in tables.
        spoil: From masks by track id to spoilt ones of the same shape; returns them unchanged where the fault cannot
            be made, such as dropping one of two people where there is one.
    """

    name: str
    spoil: Callable[[Masks], Masks]


def mask_faults(other: Masks, *, pixels: int = 20) -> tuple[Fault, ...]:
    """Return the suite.

    Args:
        other: Masks of another clip of the same size, to swap in; repeated or cut to the length needed.
        pixels: How far masks are moved and, by 0.6 of it, eroded; 20 at 480 lines.
    """
    return (
        Fault("delete 1 frame", lambda mask: delete_frames(mask, 1)),
        Fault("delete 3 frames", lambda mask: delete_frames(mask, 3)),
        Fault("delete 8 frames", lambda mask: delete_frames(mask, 8)),
        Fault("heads open", lambda mask: cut(mask, 0.0, 0.15)),
        Fault("legs open", lambda mask: cut(mask, 0.6, 1.0)),
        Fault("second person never masked", drop_person),
        Fault("second person masked late", late_person),
        Fault(f"erode {round(0.6 * pixels)} px", lambda mask: erode(mask, round(0.6 * pixels))),
        Fault("4 frames late", lambda mask: shift_time(mask, 4)),
        Fault(f"moved {pixels} px", lambda mask: move(mask, pixels)),
        Fault("another clip's masks", lambda mask: swap(mask, other)),
    )


def delete_frames(mask: Masks, count: int) -> Masks:
    """Empty ``count`` frames in the middle."""
    first = max(0, (len(mask) - count) // 2)
    spoilt = mask.clone()
    spoilt[first : first + count] = 0
    return spoilt


def drop_person(mask: Masks) -> Masks:
    """Unmask the person of the highest track; needs two people."""
    tracks = sorted({int(track) for track in torch.unique(mask)} - {0})
    return mask if len(tracks) < 2 else mask.where(mask != tracks[-1], 0)


def late_person(mask: Masks) -> Masks:
    """Unmask the person of the highest track in the second half, as detectors do that look at the first frame alone."""
    dropped, half = drop_person(mask), len(mask) // 2
    return torch.cat([mask[:half], dropped[half:]])


def erode(mask: Masks, pixels: int) -> Masks:
    """Take a border of so many pixels from all people."""
    return mask.where(~dilate(mask == 0, pixels), 0)


def cut(mask: Masks, top: float, bottom: float) -> Masks:
    """Unmask a band of every person, from ``top`` to ``bottom`` of their height."""
    spoilt = mask.clone()
    for frame in spoilt:
        for track in torch.unique(frame[frame > 0]):
            rows = torch.nonzero((frame == track).any(1)).flatten()
            first, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
            band = frame[first + round(top * height) : first + round(bottom * height)]
            band[band == track] = 0
    return spoilt


def shift_time(mask: Masks, frames: int) -> Masks:
    """Show each mask so many frames late; the first one stands in before."""
    return torch.cat([mask[:1].expand(frames, -1, -1), mask[:-frames]])[: len(mask)]


def move(mask: Masks, pixels: int) -> Masks:
    """Move all masks to the right."""
    spoilt = torch.zeros_like(mask)
    spoilt[..., pixels:] = mask[..., :-pixels]
    return spoilt


def swap(mask: Masks, other: Masks) -> Masks:
    """Take another clip's masks."""
    indices = torch.arange(len(mask)) % len(other)
    return other[indices]


def exposed_share(mask: Masks, spoilt: Masks, radius: int | float) -> float:
    """Return the share of people's pixels that spoilt masks, dilated, leave open: a fault that opens none is harmless.

    Args:
        mask: The good masks.
        spoilt: The spoilt ones.
        radius: Dilation in pixels.
    """
    people = mask > 0
    return float((people & ~dilate(spoilt > 0, radius)).sum() / people.sum().clamp(min=1))
