"""From a clip and its signals to condition videos, in the one order that does not leak.

Dilate the mask at source size; fill people at source size; resize and crop; fill again under the any-coverage resized
mask; draw the skeleton last, at model size, with line widths scaled like the picture. Frames pass one by one, so that
memory holds one window, whatever the clip's length. Nothing is coded or stored on the way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

import cv2
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.conditions import (
    ComposedClip,
    default_dilation,
    depth_without_people,
    dilate,
    edges,
    fill_people,
    normalize_depth,
    struct_all,
    struct_human,
)
from regen_train.guard import Detector, GuardSettings, check_conditions, stream_repaired
from regen_train.preparation.lettering import Layer, hide_text
from regen_train.preparation.settings import DEPTH_CONDITIONS, DatasetSettings
from regen_train.preparation.survey import ClipPlan
from regen_train.signals import Signals, stream_signals
from regen_train.signals import mask as masks
from regen_train.skeleton import default_line_width, draw_pose
from regen_train.video import (
    CropPlan,
    Frame,
    decode_frames,
    decode_gray,
    map_keypoints,
    pick_frames,
    plan_crop,
    resize_frames,
    resize_mask_any,
)

Hide = Callable[[Iterable[Layer]], Iterator[Layer]]

INSPECTED_SHORT_SIDE = 720
"""Pixels: what detectors of people, faces and text are made for; bounds the memory of a window."""


@dataclass(frozen=True)
class _Layers:
    """A window at the model's size; in all but ``real`` people were filled before resizing. Depth only if needed."""

    real: UInt8[Tensor, "t h w 3"]
    filled: UInt8[Tensor, "t h w 3"]
    mask: Bool[Tensor, "t h w"]
    depth: Float[Tensor, "t2 h w"]


@dataclass(frozen=True)
class ComposedWindow:
    """One window, composed, with what the gate needs to judge it.

    Args:
        frames: Numbers of the source frames.
        clip: What was made.
        signals: Of these frames; masks are mended.
        given: The masks as they were extracted.
        pictures: The source frames, their short side shrunk to at most `INSPECTED_SHORT_SIDE`.
    """

    frames: tuple[int, ...]
    clip: ComposedClip
    signals: Signals
    given: Bool[Tensor, "t h w"]
    pictures: UInt8[Tensor, "t H W 3"]


def compose_windows(
    plan: ClipPlan,
    settings: DatasetSettings,
    conditions: Sequence[str],
    guard: GuardSettings,
    reader: Detector | None = None,
) -> Iterator[ComposedWindow]:
    """Mend the masks of a clip and compose its windows, one at a time.

    Args:
        plan: What to cut from which clip.
        settings: How.
        conditions: Which condition videos to make.
        guard: How masks are mended, and whether text is hidden.
        reader: Finds text, where it is to be hidden.

    Raises:
        ValueError: The clip or its signals are damaged.
    """
    hide = None if reader is None or guard.text != "blur" else partial(hide_text, reader=reader)
    crop = plan_crop(*plan.size, plan.bucket.height, plan.bucket.width)
    frames = pick_frames(decode_frames(plan.path), chain(*plan.windows), what=plan.path)
    for window, (signals, given) in zip(plan.windows, stream_mended(plan, guard), strict=True):
        watched = _Watched(islice(frames, len(window)))
        clip = compose_window(watched, signals, crop, settings=settings, conditions=conditions, hide=hide)
        yield ComposedWindow(window, clip, signals, given, torch.stack(watched.pictures))


def compose_clip(
    plan: ClipPlan, settings: DatasetSettings, conditions: Sequence[str], guard: GuardSettings | None = None
) -> Iterator[ComposedClip]:
    """Compose the windows of a clip and hold each to what conditions promise; for those who look at them.

    Arguments as in `compose_windows`; ``guard`` None takes the defaults.

    Raises:
        ValueError: The clip or its signals are damaged, or a finished condition breaks its promise.
    """
    for window in compose_windows(plan, settings, conditions, GuardSettings() if guard is None else guard):
        broken = check_conditions(window.clip, fill=settings.fill, depth_fill=settings.depth_fill)
        if broken:
            raise ValueError("; ".join(map(str, broken)))
        yield window.clip


def stream_mended(plan: ClipPlan, guard: GuardSettings) -> Iterator[tuple[Signals, Bool[Tensor, "t h w"]]]:
    """Yield each window's signals with mended masks, and the masks as they were extracted."""
    path = plan.signals / masks.FILE
    mended = stream_repaired(decode_gray(path), frames=guard.repair_frames, hole_share=guard.hole_share, cuts=plan.cuts)
    chosen = pick_frames(mended, chain(*plan.windows), what=path)
    given = stream_signals(plan.signals, plan.windows, caption=plan.caption)
    for window, signals in zip(plan.windows, given, strict=True):
        repaired = list(islice(chosen, len(window)))
        extracted = torch.stack([frame.given > 0 for frame in repaired])
        yield replace(signals, mask=torch.stack([frame.mask for frame in repaired])), extracted


def compose_window(
    frames: Iterable[Frame],
    signals: Signals,
    crop: CropPlan,
    *,
    settings: DatasetSettings,
    conditions: Sequence[str],
    hide: Hide | None = None,
) -> ComposedClip:
    """Compose one window.

    Args:
        frames: Its source frames.
        signals: The signals of exactly these frames.
        crop: From the source's size to the model's.
        settings: How.
        conditions: Which condition videos to make.
        hide: Hides readable text, if asked for.

    Raises:
        ValueError: A condition needs depth, which is missing.
    """
    needs_depth = bool(DEPTH_CONDITIONS & set(conditions))
    if needs_depth and signals.depth is None and settings.standin_depth is None:
        raise ValueError("the clip has no depth, and no stand-in was asked for")
    layers = _stack_layers(frames, signals, crop, settings, needs_depth=needs_depth, hide=hide)
    pose = _draw_skeletons(signals, crop, settings)
    makers = {
        "structhuman": lambda: struct_human(layers.filled, layers.mask, pose, settings.fill),
        "structall": lambda: struct_all(_depth_picture(layers, settings), layers.mask, pose, settings.depth_fill),
        "background": lambda: fill_people(layers.filled, layers.mask, settings.fill),
        "depth": lambda: depth_without_people(_depth_picture(layers, settings), layers.mask, settings.depth_fill),
        "pose": lambda: pose,
        "edges": lambda: edges(fill_people(layers.filled, layers.mask, settings.fill)),
    }
    videos = {name: makers[name]() for name in conditions}
    return ComposedClip(frames=layers.real, conditions=videos, mask=layers.mask, pose=pose)


def standin_depth(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return the stand-in for missing depth: a vertical ramp, far (0) at the top, near (1) at the bottom."""
    return torch.linspace(0, 1, height)[:, None].expand(height, width).contiguous()


class _Watched:
    """Pass frames on one by one, and keep a small copy of each for the gate."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self.pictures: list[UInt8[Tensor, "H W 3"]] = []

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            scale = INSPECTED_SHORT_SIDE / min(frame.rgb.shape[:2])
            size = round(frame.rgb.shape[1] * scale), round(frame.rgb.shape[0] * scale)
            small = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame.rgb
            self.pictures.append(torch.from_numpy(small))
            yield frame


def _stack_layers(
    frames: Iterable[Frame],
    signals: Signals,
    crop: CropPlan,
    settings: DatasetSettings,
    *,
    needs_depth: bool,
    hide: Hide | None,
) -> _Layers:
    count, (height, width) = len(signals.mask), crop.target
    radius = default_dilation(*crop.source) if settings.dilation is None else settings.dilation
    ramp = standin_depth(*crop.source)[None]
    layers = _Layers(
        real=torch.empty(count, height, width, 3, dtype=torch.uint8),
        filled=torch.empty(count, height, width, 3, dtype=torch.uint8),
        mask=torch.empty(count, height, width, dtype=torch.bool),
        depth=torch.empty(count if needs_depth else 0, height, width),
    )
    people_by_frame = (dilate(mask[None] > 0, radius) for mask in signals.mask)
    sources = (
        Layer(torch.from_numpy(frame.rgb)[None], people) for frame, people in zip(frames, people_by_frame, strict=True)
    )
    for place, source in enumerate(sources if hide is None else hide(sources)):
        now, picture, people = slice(place, place + 1), source.picture, source.people
        layers.real[now] = resize_frames(picture, crop)
        layers.filled[now] = resize_frames(fill_people(picture, people, settings.fill), crop)
        layers.mask[now] = resize_mask_any(people, crop)
        if not needs_depth:
            continue
        depth = ramp if signals.depth is None else signals.depth[now].float()
        layers.depth[now] = resize_frames(depth.where(~people, 0.0), crop)
    return layers


def _depth_picture(layers: _Layers, settings: DatasetSettings) -> UInt8[Tensor, "t h w"]:
    return normalize_depth(layers.depth, layers.mask, settings.depth_normalization)


def _draw_skeletons(signals: Signals, crop: CropPlan, settings: DatasetSettings) -> UInt8[Tensor, "t h w 3"]:
    style = settings.skeleton_style
    at_source = default_line_width(style, *crop.source) if settings.line_width is None else settings.line_width
    line_width = max(1.0, at_source * crop.scale)
    keypoints = map_keypoints(signals.keypoints, crop)
    return draw_pose(keypoints, signals.scores, *crop.target, style, line_width)
