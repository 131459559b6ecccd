"""Pictures of clips: sheets of frames for the page's loops, strips to read along, videos side by side."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from regen_train.files import whole_file
from regen_train.video import write_video

ENLARGED = 4
"""Pixels of a side that a pixel of the toy becomes in strips and videos."""
_GAP = 2
"""Pixels between pictures, before they are enlarged."""


@dataclass(frozen=True)
class Panel:
    """One video of a clip.

    Args:
        label: What it is.
        kind: ``source``, ``given``, ``ours`` or ``other``; decides how the page marks it.
        frames: RGB.
    """

    label: str
    kind: str
    frames: UInt8[Tensor, "t h w 3"]

    @cached_property
    def sheet(self) -> str:
        """All frames as one picture; see `sheet_uri`."""
        return sheet_uri(self.frames)


@dataclass(frozen=True)
class ShownClip:
    """A clip as the page shows it.

    Args:
        title: What is seen.
        caption: What was to be painted.
        panels: Its videos: source, conditions and what was painted from them.
        others: What others make of it.
    """

    title: str
    caption: str
    panels: Sequence[Panel]
    others: Sequence[Panel]


def sheet_uri(frames: UInt8[Tensor, "t h w 3"]) -> str:
    """Return all frames below each other as a WebP in a ``data:`` address, the smaller of two ways to code it.

    Drawn pictures are smallest without loss. Painted ones are coded with loss, each pixel as four, so that colours
    keep their place.
    """
    sheet = Image.fromarray(rearrange(frames, "t h w c -> (t h) w c").numpy())
    doubled = sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)
    smallest = min(_webp(sheet, lossless=True), _webp(doubled, quality=90), key=len)
    return "data:image/webp;base64," + base64.b64encode(smallest).decode()


def write_strip(path: Path, rows: Sequence[Sequence[UInt8[Tensor, "h w 3"]]]) -> None:
    """Write rows of pictures of one size as PNG, enlarged without blurring.

    Args:
        path: Ends with .png.
        rows: All of the same length.
    """
    table = torch.stack([torch.stack(list(row)) for row in rows])
    height, width = table.shape[2:4]
    spaced = torch.full((*table.shape[:2], height + _GAP, width + _GAP, 3), 255, dtype=torch.uint8)
    spaced[:, :, :height, :width] = table
    joined = rearrange(spaced, "r n h w c -> (r h) (n w) c")[:-_GAP, :-_GAP]
    with whole_file(path) as temporary:
        Image.fromarray(enlarge(joined[None])[0].numpy()).save(temporary, format="PNG")


def write_side_by_side(path: Path, videos: Sequence[UInt8[Tensor, "t h w 3"]], fps: float) -> None:
    """Write videos of one size beside each other as H.264, enlarged without blurring."""
    gap = torch.full((*videos[0].shape[:2], _GAP, 3), 255, dtype=torch.uint8)
    parts = [part for video in videos for part in (video, gap)][:-1]
    write_video(path, enlarge(torch.cat(parts, dim=2)), fps)


def enlarge(frames: UInt8[Tensor, "t h w 3"], times: int = ENLARGED) -> UInt8[Tensor, "t H W 3"]:
    """Make squares of pixels."""
    return repeat(frames, "t h w c -> t (h y) (w x) c", y=times, x=times)


def _webp(image: Image.Image, *, lossless: bool = False, quality: int = 80) -> bytes:
    file = io.BytesIO()
    image.save(file, format="WEBP", lossless=lossless, quality=quality, method=3)
    return file.getvalue()
