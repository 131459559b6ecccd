"""From a composed window to strips of small pictures: a few frames side by side, one strip for each thing to see."""

import shutil
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import ComposedClip

STRIPS = ("source", "mask", "pose", "depth", "structhuman", "structall")
"""All strips, top to bottom. The mask is drawn over the source if that may be shown."""
SHOWING_SOURCE = frozenset({"source", "structhuman"})
"""StructHuman is the real background around the people."""
STRIPS_VERSION = 1
"""Goes up whenever the same window gives other pictures."""
_SUFFIX = ".webp"
_QUALITY = 80
_TINT = (255, 64, 160)  # a colour that neither skins nor skeletons have
_TINTED = 0.45


def choose_frames(window: Sequence[int], flagged: Collection[int], *, count: int) -> list[int]:
    """Return which frames of a window to show, as places in it: evenly spread, but up to half of them flagged.

    Args:
        window: The source frame of each frame, ascending.
        flagged: Source frames worth seeing; one that the window leaves out is shown by the last frame before it.
        count: How many to show; all, if the window has fewer.
    """
    chosen = _spread(range(len(window)), count)
    inside = [frame for frame in flagged if window[0] <= frame < frame_end(window, len(window) - 1)]
    wanted = sorted({bisect_right(window, frame) - 1 for frame in inside})
    lacking = max(0, max(1, count // 2) - len(set(wanted) & set(chosen)))
    for place in _spread([place for place in wanted if place not in chosen], lacking):
        plain = [other for other in chosen if other not in wanted]
        if plain:
            chosen[chosen.index(min(plain, key=lambda other: abs(other - place)))] = place
    return sorted(chosen)


def frame_end(window: Sequence[int], place: int) -> int:
    """Return the next source frame that a window takes after the one at a place; the last one stands for itself."""
    after = bisect_right(window, window[place])
    return window[after] if after < len(window) else window[place] + 1


def draw_strips(
    clip: ComposedClip, places: Sequence[int], *, height: int, source: bool
) -> dict[str, UInt8[Tensor, "h w 3"]]:
    """Draw the strips of a window.

    Args:
        clip: The window, as it is encoded.
        places: Which of its frames.
        height: Of the strips in pixels; smaller windows are not enlarged.
        source: Whether pixels of the clip may be shown. If not, there is no source and no StructHuman, and the mask
            stands alone.
    """
    mask = repeat(clip.mask.byte() * 255, "t h w -> t h w c", c=3)
    videos = {"mask": _tint(clip.frames, clip.mask) if source else mask, "pose": clip.pose}
    if source:
        videos["source"] = clip.frames
    videos |= {name: video for name, video in clip.conditions.items() if source or name not in SHOWING_SOURCE}
    chosen = list(places)
    return {name: _lay_out(videos[name][chosen], height) for name in STRIPS if name in videos}


def write_strips(folder: Path, strips: Mapping[str, UInt8[Tensor, "h w 3"]]) -> None:
    """Write each strip as ``FOLDER/NAME.webp``; the folder appears only when whole.

    Pictures carry pixels alone: no name, no date, no EXIF.
    """
    from PIL import Image

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, strip in strips.items():
        picture = Image.fromarray(strip.numpy())
        picture.save(temporary / f"{name}{_SUFFIX}", lossless=name == "pose", quality=_QUALITY, method=4)
    temporary.rename(folder)


def find_strips(folder: Path) -> dict[str, Path]:
    """Return the strips that `write_strips` wrote, top to bottom; empty if there is no such folder."""
    paths = {name: folder / f"{name}{_SUFFIX}" for name in STRIPS}
    return {name: path for name, path in paths.items() if path.is_file()}


def strip_height(bucket_height: int, height: int) -> int:
    """Return how high strips become: as asked for, never higher than the window."""
    return min(bucket_height, height)


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of some places, evenly spread, the first and the last among them."""
    if len(places) <= count:
        return list(places)
    if count < 2:
        return list(places[len(places) // 2 :][:count])
    return [places[round(number * (len(places) - 1) / (count - 1))] for number in range(count)]


def _tint(frames: UInt8[Tensor, "t h w 3"], mask: Bool[Tensor, "t h w"]) -> UInt8[Tensor, "t h w 3"]:
    tinted = frames.float().lerp(torch.tensor(_TINT, dtype=torch.float32), _TINTED).round().byte()
    return torch.where(mask[..., None], tinted, frames)


def _lay_out(frames: UInt8[Tensor, "t h w 3"], height: int) -> UInt8[Tensor, "h2 w2 3"]:
    """Shrink each frame by itself, so that neighbours do not mix, and put them side by side."""
    source_height, width = frames.shape[1:3]
    size = (
        strip_height(source_height, height),
        max(1, round(width * strip_height(source_height, height) / source_height)),
    )
    if size != (source_height, width):
        planes = rearrange(frames, "t h w c -> t c h w").float()
        small = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
        frames = rearrange(small.round_().clamp_(0, 255).byte(), "t c h w -> t h w c")
    return rearrange(frames, "t h w c -> h (t w) c").contiguous()
