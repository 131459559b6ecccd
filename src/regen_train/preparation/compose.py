"""From a clip and its signals to condition videos, in the one order that does not leak.

Dilate the mask at source size; fill people at source size; resize and crop; fill again under the any-coverage resized
mask; draw the skeleton last, at model size, with line widths scaled like the picture. Frames pass one by one, so that
memory holds one window, whatever the clip's length. Nothing is coded or stored on the way.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.conditions import (
    GRAY,
    default_dilation,
    depth_without_people,
    dilate,
    edges,
    fill_people,
    normalize_depth,
    pose_support,
    struct_all,
    struct_human,
)
from regen_train.preparation.settings import DEPTH_CONDITIONS, DatasetSettings
from regen_train.preparation.survey import ClipPlan
from regen_train.signals import Signals, stream_signals
from regen_train.skeleton import default_line_width, draw_pose
from regen_train.video import (
    CropPlan,
    Frame,
    decode_frames,
    map_keypoints,
    pick_frames,
    plan_crop,
    resize_frames,
    resize_mask_any,
)

_WITH_SKELETON = frozenset({"structhuman", "structall"})
_FILLED = frozenset({"structhuman", "structall", "depth"})


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


@dataclass(frozen=True)
class _Layers:
    """A window at the model's size; in all but ``real`` people were filled before resizing. Depth only if needed."""

    real: UInt8[Tensor, "t h w 3"]
    filled: UInt8[Tensor, "t h w 3"]
    mask: Bool[Tensor, "t h w"]
    depth: Float[Tensor, "t2 h w"]


def compose_clip(plan: ClipPlan, settings: DatasetSettings, conditions: Sequence[str]) -> Iterator[ComposedClip]:
    """Compose the windows of a clip, one at a time.

    Args:
        plan: What to cut from which clip.
        settings: How.
        conditions: Which condition videos to make.

    Raises:
        ValueError: The clip or its signals are damaged, or a finished condition breaks its promise.
    """
    crop = plan_crop(*plan.size, plan.bucket.height, plan.bucket.width)
    frames = pick_frames(decode_frames(plan.path), chain(*plan.windows), what=plan.path)
    for window, signals in zip(plan.windows, stream_signals(plan.signals, plan.windows), strict=True):
        clip = compose_window(islice(frames, len(window)), signals, crop, settings=settings, conditions=conditions)
        faults = condition_faults(clip, settings)
        if faults:
            raise ValueError("; ".join(faults))
        yield clip


def compose_window(
    frames: Iterable[Frame],
    signals: Signals,
    crop: CropPlan,
    *,
    settings: DatasetSettings,
    conditions: Sequence[str],
) -> ComposedClip:
    """Compose one window.

    Args:
        frames: Its source frames.
        signals: The signals of exactly these frames.
        crop: From the source's size to the model's.
        settings: How.
        conditions: Which condition videos to make.

    Raises:
        ValueError: A condition needs depth, which is missing.
    """
    needs_depth = bool(DEPTH_CONDITIONS & set(conditions))
    if needs_depth and signals.depth is None and settings.standin_depth is None:
        raise ValueError("the clip has no depth, and no stand-in was asked for")
    layers = _stack_layers(frames, signals, crop, settings, needs_depth=needs_depth)
    pose = _draw_skeletons(signals, crop, settings)
    makers = {
        "structhuman": lambda: struct_human(layers.filled, layers.mask, pose, settings.fill),
        "structall": lambda: struct_all(_depth_picture(layers, settings), layers.mask, pose, settings.depth_fill),
        "depth": lambda: depth_without_people(_depth_picture(layers, settings), layers.mask, settings.depth_fill),
        "pose": lambda: pose,
        "edges": lambda: edges(fill_people(layers.filled, layers.mask, settings.fill)),
    }
    videos = {name: makers[name]() for name in conditions}
    return ComposedClip(frames=layers.real, conditions=videos, mask=layers.mask, pose=pose)


def standin_depth(height: int, width: int) -> Float[Tensor, "h w"]:
    """Return the stand-in for missing depth: a vertical ramp, far (0) at the top, near (1) at the bottom."""
    return torch.linspace(0, 1, height)[:, None].expand(height, width).contiguous()


def condition_faults(clip: ComposedClip, settings: DatasetSettings) -> list[str]:
    """Return where a finished condition breaks its promise; exact comparisons, for nothing may leak.

    Where a skeleton is drawn both structs equal it; elsewhere under the mask they and depth are flat; outside both
    structhuman equals the clip, and structall and depth are gray-scale.
    """
    drawn, faults = pose_support(clip.pose), []
    for name in sorted(_FILLED & set(clip.conditions)):
        video = clip.conditions[name]
        over = drawn & (name in _WITH_SKELETON)
        under = clip.mask & ~over
        fill = settings.fill if name == "structhuman" else settings.depth_fill
        checks = {
            "is not the skeleton where one is drawn": over & (video != clip.pose).any(-1),
            "is not flat under the mask": under & (video != _flat_values(video, under, gray=fill == "gray")).any(-1),
        }
        if name == "structhuman":
            checks["is not the clip outside the mask"] = ~clip.mask & ~over & (video != clip.frames).any(-1)
        else:
            checks["is coloured where no skeleton is drawn"] = ~over & (video != video[..., :1]).any(-1)
        faults += [f"{name} {fault}: {int(bad.sum())} pixels" for fault, bad in checks.items() if bool(bad.any())]
    return faults


def _flat_values(
    video: UInt8[Tensor, "t h w 3"], under: Bool[Tensor, "t h w"], *, gray: bool
) -> UInt8[Tensor, "t 1 1 3"]:
    """Return the one value that each frame must have under the mask."""
    values = video.new_full((len(video), 1, 1, 3), GRAY)
    if not gray:
        for value, frame, area in zip(values, video, under, strict=True):
            value[:] = frame[area][0] if bool(area.any()) else GRAY
    return values


def _stack_layers(
    frames: Iterable[Frame], signals: Signals, crop: CropPlan, settings: DatasetSettings, *, needs_depth: bool
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
    for place, frame in zip(range(count), frames, strict=True):
        now = slice(place, place + 1)
        picture = torch.from_numpy(frame.rgb)[None]
        people = dilate(signals.mask[now] > 0, radius)
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
