"""What the toy's observer is trained on: drawn people, what only looks like people, and how generated video looks."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from regen_train.conditions import GRAY, HumanFill, dilate, fill_people, struct_human
from regen_train.draws import generator_for
from regen_train.preparation.settings import ConditionName
from regen_train.skeleton import draw_pose
from regen_train.skeleton.topology import SCORE_THRESHOLD
from regen_train.toy.composing import compose_drawn
from regen_train.toy.form import TOY_DILATION, TOY_FORM, TOY_LINE_WIDTH, TOY_PEOPLE
from regen_train.toy.observer import BODY_POINTS
from regen_train.toy.world import ClipFormat, WorldClip, draw_clip, render
from regen_train.toy.world.identity import keyed_random

_SIGNALS: tuple[ConditionName, ...] = ("depth", "edges", "pose")
KINDS = (*("people",) * 13, *("skeletons",) * 3, "silhouettes", "structall", "signals", "nobody", "noise", "noise")
"""What clips show, in turns."""

SHOWN, HIDDEN = 1, 2
_FORM = replace(TOY_FORM, num_frames=5)
_PEOPLE = TOY_PEOPLE.max_people


@dataclass(frozen=True)
class Pictures:
    """Pictures with the truth of them.

    Args:
        frames: RGB.
        mask: Where people are; a silhouette or skeleton is nobody.
        points: (x, y) in pixels of `regen_train.toy.observer.BODY_POINTS`; 0 where absent.
        states: 0 absent, `SHOWN`, or `HIDDEN`: behind something, to be neither found nor missed.
    """

    frames: UInt8[Tensor, "n h w 3"]
    mask: Bool[Tensor, "n h w"]
    points: Float[Tensor, "n p 13 2"]
    states: Int[Tensor, "n p 13"]

    def __len__(self) -> int:
        return len(self.frames)

    def pick(self, numbers: Int[Tensor, " b"]) -> "Pictures":
        """Return some of them."""
        return Pictures(self.frames[numbers], self.mask[numbers], self.points[numbers], self.states[numbers])


def draw_pictures(count: int, *, seed: int, kinds: tuple[str, ...] = KINDS, form: ClipFormat = _FORM) -> Pictures:
    """Draw the frames of clips.

    Args:
        count: How many clips.
        seed: Of the world.
        kinds: What they show, in turns; of `KINDS`.
        form: Of each clip.
    """
    drawn = [_draw(seed, number, kinds[number % len(kinds)], form) for number in range(count)]
    return Pictures(*(torch.cat([getattr(some, name) for some in drawn]) for name in Pictures.__annotations__))


def _draw(seed: int, number: int, kind: str, form: ClipFormat) -> Pictures:
    spec = draw_clip(seed, number, form, TOY_PEOPLE)
    if kind == "nobody":
        spec = replace(spec, people=(), passed=None)
    clip = render(spec)
    random = keyed_random(seed, number, "observer")
    if kind == "noise":
        return _noisy(clip, random)
    if kind in ("skeletons", "silhouettes"):
        return _without(clip, random, skeletons=kind == "skeletons")
    if kind in ("structall", "signals"):
        name: ConditionName = "structall" if kind == "structall" else _SIGNALS[number % len(_SIGNALS)]
        return _pictures(clip, compose_drawn(clip, [name]).conditions[name], clip.mask > 0, [False] * len(spec.people))
    return _pictures(clip, clip.frames, torch.zeros_like(clip.mask, dtype=torch.bool), [True] * len(spec.people))


def _without(clip: WorldClip, random: np.random.Generator, *, skeletons: bool) -> Pictures:
    """Fill some people, or all, with a flat colour, and draw their skeletons where asked for."""
    kept = [bool(random.random() < 0.4) for _ in clip.identities]
    gone = torch.tensor([not keep for keep in kept])
    filled = dilate(clip.visible[gone].any(0), TOY_DILATION)
    poses, (height, width) = clip.poses, clip.frames.shape[1:3]
    if skeletons:
        drawn = draw_pose(poses.keypoints[:, gone], poses.scores[:, gone], height, width, line_width=TOY_LINE_WIDTH)
        return _pictures(clip, struct_human(clip.frames, filled, drawn), filled, kept)
    fill: HumanFill | int = GRAY if random.random() < 0.5 else "background_mean"
    return _pictures(clip, fill_people(clip.frames, filled, fill), filled, kept)


def _noisy(clip: WorldClip, random: np.random.Generator) -> Pictures:
    """Put noise, fine or coarse, in the place of all people, or of everything."""
    where = (
        dilate(clip.mask > 0, TOY_DILATION) if random.random() < 0.5 else torch.ones_like(clip.mask, dtype=torch.bool)
    )
    count, height, width, _ = clip.frames.shape
    cells = (-(-side // int(random.integers(1, 9))) for side in (height, width))
    coarse = torch.from_numpy(random.normal(size=(count, 3, *cells))).float()
    fine = functional.interpolate(coarse, size=(height, width), mode=random.choice(["nearest", "bicubic"]))
    colour = torch.from_numpy(random.uniform(60, 200, size=(1, 3, 1, 1))).float()
    noise = (colour + random.uniform(15, 90) * fine).clamp(0, 255).to(torch.uint8)
    frames = torch.where(where[..., None], rearrange(noise, "n c h w -> n h w c"), clip.frames)
    return _pictures(clip, frames, where, [False] * len(clip.identities))


def _pictures(clip: WorldClip, frames: Tensor, nobody: Tensor, kept: list[bool]) -> Pictures:
    """Return pictures whose truth are the people kept, outside of where nobody is."""
    keep = torch.tensor(kept, dtype=torch.bool)
    mask = clip.visible[keep].any(0) & ~nobody if keep.any() else torch.zeros_like(nobody)
    points = torch.zeros(len(frames), _PEOPLE, len(BODY_POINTS), 2)
    states = torch.zeros(len(frames), _PEOPLE, len(BODY_POINTS), dtype=torch.long)
    if keep.any():
        scores = clip.poses.scores[:, keep][:, :, BODY_POINTS]
        points[:, : int(keep.sum())] = clip.poses.keypoints[:, keep][:, :, BODY_POINTS].nan_to_num()
        states[:, : int(keep.sum())] = torch.where(scores >= SCORE_THRESHOLD, SHOWN, HIDDEN) * (scores > 0)
    return Pictures(frames, mask, points, states)


@dataclass(frozen=True)
class Softening:
    """How far pictures are from drawn ones: the largest of each change, drawn anew for each picture.

    Args:
        blur: Standard deviation, pixels.
        shrink: Factor by which sides are made smaller and larger again.
        noise: Standard deviation, of 255.
        wobble: Height of smooth patches of colour, of 255.
        colour: Share by which contrast, saturation and channels change.
        other_room: Share of pictures whose room, not people, takes other colours and loses its detail.
        jpeg: Share of pictures that go through JPEG, quality 20 to 70.
    """

    blur: int | float = 1.5
    shrink: int | float = 2.5
    noise: int | float = 12.0
    wobble: int | float = 25.0
    colour: int | float = 0.35
    other_room: int | float = 0.35
    jpeg: int | float = 0.25


def soften(pictures: Pictures, settings: Softening, *, seed: int, step: int) -> UInt8[Tensor, "n h w 3"]:
    """Return pictures as a generator may paint them; same seed and step, same pictures."""
    chance = _Chance(generator_for(seed, step, "soften"), len(pictures))
    pixels = rearrange(pictures.frames, "n h w c -> n c h w").float()
    pixels = _other_rooms(pixels, pictures.mask, settings, chance)
    pixels = gaussian(pixels, settings.blur * chance.numbers() * chance.some(0.8))
    pixels = _shrunk(pixels, settings, chance)
    pixels = _coloured(pixels, settings, chance)
    coarse = settings.wobble * chance.numbers()[:, None, None, None] * chance.normal(3, 9, 9) / 2
    pixels = pixels + functional.interpolate(coarse, size=pixels.shape[-2:], mode="bicubic") * chance.some(0.5, 3)
    pixels = pixels + settings.noise * chance.numbers()[:, None, None, None] * chance.normal(*pixels.shape[1:])
    frames = rearrange(pixels.round().clamp(0, 255).to(torch.uint8), "n c h w -> n h w c").contiguous()
    qualities = (20 + 50 * chance.numbers()).int().tolist()
    for number in torch.nonzero(chance.some(settings.jpeg))[:, 0].tolist():
        frames[number] = _through_jpeg(frames[number], qualities[number])
    return frames


def gaussian(pixels: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"], reach: int = 4) -> Float[Tensor, "n c h w"]:
    """Blur each picture by its own width."""
    number, channels = pixels.shape[:2]
    places = torch.arange(-reach, reach + 1.0)
    kernel = torch.exp(-(places**2) / (2 * sigma[:, None].clamp(min=0.05) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    flat = rearrange(functional.pad(pixels, (reach,) * 4, mode="replicate"), "n c h w -> 1 (n c) h w")
    flat = functional.conv2d(flat, kernel, groups=number * channels)
    flat = functional.conv2d(flat, kernel.transpose(-1, -2), groups=number * channels)
    return rearrange(flat, "1 (n c) h w -> n c h w", n=number)


@dataclass(frozen=True)
class _Chance:
    generator: torch.Generator
    count: int

    def numbers(self) -> Tensor:
        return torch.rand(self.count, generator=self.generator)

    def some(self, share: int | float, ones: int = 0) -> Tensor:
        """Return 1 for a share of pictures, else 0, with as many further axes of length 1."""
        return (self.numbers() < share).float().reshape(-1, *(1,) * ones)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.count, *shape, generator=self.generator)


def _other_rooms(pixels: Tensor, mask: Tensor, settings: Softening, chance: _Chance) -> Tensor:
    human = gaussian(mask[:, None].float(), torch.full((len(mask),), 0.7))
    mixing = torch.eye(3) * 0.4 + 0.5 * chance.normal(3, 3) + 0.1
    room = torch.einsum("ndc,nchw->ndhw", mixing, pixels - 128) + 128 + 40 * chance.normal(3, 1, 1)
    room = gaussian(room.clamp(0, 255), 2.5 * chance.numbers())
    changed = human * pixels + (1 - human) * room
    chosen = chance.some(settings.other_room, 3) * mask.any(-1).any(-1).float()[:, None, None, None]
    return torch.where(chosen > 0, changed, pixels)


def _shrunk(pixels: Tensor, settings: Softening, chance: _Chance) -> Tensor:
    factor = 1 + (settings.shrink - 1) * float(chance.numbers()[0])
    size = [max(8, round(side / factor)) for side in pixels.shape[-2:]]
    small = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    large = functional.interpolate(small, size=pixels.shape[-2:], mode="bicubic")
    return torch.where(chance.some(0.35, 3) > 0, large, pixels)


def _coloured(pixels: Tensor, settings: Softening, chance: _Chance) -> Tensor:
    def factor() -> Tensor:
        return 1 + settings.colour * (2 * chance.numbers()[:, None, None, None] - 1)

    gray = pixels.mean(1, keepdim=True)
    pixels = gray + (pixels - gray) * factor()
    pixels = (pixels - 128) * factor() + 128 + 60 * (factor() - 1)
    return pixels * (1 + 0.25 * settings.colour * chance.normal(3, 1, 1))


def _through_jpeg(frame: Tensor, quality: int) -> Tensor:
    _, packed = cv2.imencode(".jpg", frame.numpy(), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return torch.from_numpy(cv2.imdecode(packed, cv2.IMREAD_COLOR))
