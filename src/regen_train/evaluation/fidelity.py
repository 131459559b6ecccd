"""Does the new clip do what the old one did: people where people were, in their poses, before the same background?"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Pck:
    """Share of body points found where they should be.

    Args:
        hits: How many were found near enough.
        n: How many were looked for.
    """

    hits: int
    n: int

    @property
    def rate(self) -> float:
        """Hits of all; not a number where none was looked for."""
        return self.hits / self.n if self.n else math.nan


def mask_iou(found: Bool[Tensor, "t h w"], wanted: Bool[Tensor, "_ _ _"]) -> float:
    """Return intersection over union of two masks, over all pixels of the clip together.

    Raises:
        ValueError: The sizes differ, or nobody is in either.
    """
    _check_sizes({"found": found, "wanted": wanted})
    union = int((found | wanted).sum())
    if union == 0:
        raise ValueError("found and wanted are both empty: there is nobody to compare; leave this clip out")
    return int((found & wanted).sum()) / union


def psnr(a: UInt8[Tensor, "t h w 3"], b: UInt8[Tensor, "_ _ _ 3"], where: Bool[Tensor, "_ _ _"]) -> float:
    """Return the peak signal-to-noise ratio of two clips, in dB, over some of their pixels together.

    Args:
        a: A clip.
        b: The other.
        where: Which pixels count, such as those outside the dilated mask.

    Returns:
        dB for a peak of 255; infinite where they are equal.

    Raises:
        ValueError: The sizes differ, or no pixel counts.
    """
    _check_sizes({"a": a, "b": b, "where": where})
    if not bool(where.any()):
        raise ValueError("where is empty: no pixel to compare; people fill the clip, or the mask is inverted")
    error = float((a[where].double() - b[where].double()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def pck(
    found: Float[Tensor, "t n k 2"],
    wanted: Float[Tensor, "_ p _ 2"],
    seen: Bool[Tensor, "_ _ _"],
    *,
    alpha: int | float = 0.1,
) -> Pck:
    """Count the points found within ``alpha`` times the longer side of their person's bounding box.

    What was found need not be in order: in each frame every kind of point is assigned one to one, so that the sum of
    distances is least. With more found than people that is lenient: give at most as many as there are people.

    Args:
        found: (x, y) in pixels of each kind of point; NaN for none.
        wanted: Where they should be.
        seen: Which of those count; the bounding box of a person in a frame is that of the points that count.
        alpha: Share of the box's longer side.

    Raises:
        ValueError: Frames or kinds of points differ, a point that counts is NaN, or ``alpha`` is not above 0.

    Source:
        Yang and Ramanan 2013, "Articulated human detection with flexible mixtures of parts", section 6.
    """
    _check_points(found, wanted, seen)
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be above 0, such as 0.1, got {alpha}")
    reach = alpha * _longer_side(wanted, seen)
    hits = 0
    for frame, kind in torch.nonzero(seen.any(1)).tolist():
        people = torch.nonzero(seen[frame, :, kind])[:, 0]
        distances = torch.cdist(wanted[frame, people, kind].double(), found[frame, :, kind].double())
        # Farther than anything in a picture, so that what was not found is assigned last.
        distances = torch.where(distances.isnan(), torch.full_like(distances, 1e9), distances)
        rows, columns = linear_sum_assignment(distances.numpy())
        hits += int((distances[rows, columns] <= reach[frame, people[rows]]).sum())
    return Pck(hits, int(seen.sum()))


def _longer_side(wanted: Tensor, seen: Tensor) -> Tensor:
    """Return the longer side of each person's box, [t, p]; 0 where nobody is seen."""
    far = torch.full_like(wanted, math.inf)
    low = torch.where(seen[..., None], wanted, far).amin(2)
    high = torch.where(seen[..., None], wanted, -far).amax(2)
    return (high - low).amax(-1).clamp(min=0).double()


def _check_points(found: Tensor, wanted: Tensor, seen: Tensor) -> None:
    faults = []
    if (len(found), found.shape[2]) != (len(wanted), wanted.shape[2]):
        faults.append(f"found {list(found.shape)} and wanted {list(wanted.shape)} differ in frames or kinds of points")
    if wanted.shape[:3] != seen.shape:
        faults.append(f"seen must be {list(wanted.shape[:3])} as wanted is, got {list(seen.shape)}")
    elif bool(wanted[seen].isnan().any()):
        faults.append("wanted is NaN where seen is set; unset it there")
    if faults:
        raise ValueError("; ".join(faults))


def _check_sizes(tensors: dict[str, Shaped[Tensor, "..."]]) -> None:
    if len({tuple(tensor.shape[:3]) for tensor in tensors.values()}) > 1:
        sizes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"all must have the same frames, height and width, got {sizes}; resize to the model's size")
