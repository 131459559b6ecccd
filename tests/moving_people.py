"""Small clips with one moving person each, and their signals."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regen_train.conditions import dilate
from regen_train.files import file_sha256
from regen_train.signals import Poses, write_signals
from regen_train.video import write_video

CAPTION = "A person walks along a wall."


@dataclass(frozen=True)
class People:
    """What there is to know of a clip, before it is written.

    Args:
        frames: uint8 [t, h, w, 3].
        mask: uint8 [t, h, w], 255 on the person.
        poses: One person.
        depth: uint16 [t, h, w], larger on the person.
    """

    frames: Tensor
    mask: Tensor
    poses: Poses
    depth: Tensor


def draw_people(*, seed: int = 0, num_frames: int = 20, height: int = 48, width: int = 64) -> People:
    """Draw a textured, bright person who walks to and fro before a softly textured, dark wall."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    wall = (20 + 80 * soft[0]).to(torch.uint8).permute(1, 2, 0).contiguous()
    frames = wall.repeat(num_frames, 1, 1, 1)
    mask = torch.zeros(num_frames, height, width, dtype=torch.uint8)
    keypoints = torch.full((num_frames, 1, 133, 2), torch.nan)
    for number in range(num_frames):
        span = width - 20
        left, top, bottom = 4 + span - abs((2 * number + 5 * seed) % (2 * span) - span), height // 4, height - 4
        shape = (bottom - top, 12, 3)
        frames[number, top:bottom, left : left + 12] = torch.randint(150, 256, shape, generator=generator).byte()
        mask[number, top:bottom, left : left + 12] = 255
        keypoints[number, 0, :17] = torch.rand(17, 2, generator=generator) * torch.tensor([12, bottom - top])
        keypoints[number, 0, :17] += torch.tensor([left, top])
    depth = torch.randint(100, 5000, (height, width), generator=generator).repeat(num_frames, 1, 1)
    depth = depth.where(mask == 0, 9000 + seed).to(torch.uint16)
    scores = torch.where(keypoints.isnan().any(-1), 0.0, 1.0)
    return People(frames, mask, Poses(keypoints, scores), depth)


def replace_people(people: People, *, radius: int, seed: int = 1) -> People:
    """Return another person in the same place: noise under the dilated mask, all else as it was."""
    noise = torch.randint(0, 256, people.frames.shape, generator=torch.Generator().manual_seed(seed)).byte()
    under = dilate(people.mask > 0, radius)[..., None]
    return People(noise.where(under, people.frames), people.mask, people.poses, people.depth)


def write_people(folder: Path, name: str, people: People, *, fps: float = 15.0, depth: bool = True) -> Path:
    """Write ``FOLDER/NAME.mkv`` and ``FOLDER/signals/NAME``; return the clip."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / f"{name}.mkv"
    write_video(clip, people.frames, fps, codec="ffv1")
    write_signals(
        folder / "signals" / name,
        mask=people.mask,
        people=people.poses,
        caption=CAPTION,
        source_sha256=file_sha256(clip),
        depth=people.depth if depth else None,
        meta={"source": clip.name},
    )
    return clip
