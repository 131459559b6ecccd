"""Draw whole-body keypoints as coloured skeletons on black."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from regen_train.skeleton.styles import STYLES, SkeletonStyle, StyleRules, default_line_width
from regen_train.skeleton.topology import (
    BODY_COLOURS,
    BODY_FROM_COCO,
    FACE,
    FACE_COLOUR,
    HAND_COLOURS,
    HAND_EDGES,
    HAND_POINT_COLOUR,
    LEFT_HAND,
    LEFT_SHOULDER,
    LIMB_BRIGHTNESS,
    LIMBS,
    NECK,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    SCORE_THRESHOLD,
)

_SHIFT = 4
"""Binary places of a pixel that OpenCV is given, so that thin lines and slow motion do not jump by whole pixels."""

_FAR = 1 << 14
"""Pixels: points farther out than this are not drawn; OpenCV's coordinates would overflow."""

Colour = tuple[int, ...]


@dataclass(frozen=True)
class _Pen:
    """Sizes in pixels of the canvas, after ControlNet's drawer, where a limb is 8 wide."""

    limb_radius: float
    joint_radius: float
    hand_line: int
    hand_radius: float
    face_radius: float

    @classmethod
    def of_width(cls, line_width: float) -> "_Pen":
        half = line_width / 2
        return cls(
            limb_radius=half,
            joint_radius=half,
            hand_line=max(1, round(half / 2)),
            hand_radius=half,
            face_radius=0.75 * half,
        )


def draw_pose(
    keypoints: Shaped[Tensor, "..."],
    scores: Shaped[Tensor, "..."],
    height: int,
    width: int,
    style: SkeletonStyle = "regenhuman",
    line_width: int | float | None = None,
) -> UInt8[Tensor, "t h w 3"]:
    """Draw every person of every frame.

    Args:
        keypoints: float [t, p, 133, 2], (x, y) in pixels of the picture drawn, COCO-WholeBody order; NaN where absent.
        scores: float [t, p, 133]; points below 0.3 are not drawn.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        style: ``regenhuman``: body, hands and face as in the paper's release. ``vace``: body and face, no hands, as
            VACE was pretrained on. ``controlnet``: body, hands and face in ControlNet's own colours.
        line_width: Width of a limb in pixels of the picture drawn; joints, hands and face points follow. Nothing is
            drawn thinner than a pixel. None takes `default_line_width`.

    Returns:
        uint8 [t, h, w, 3] on black. Edges are hard, but soft in ``vace``, whose original is resized after drawing.

    Raises:
        ValueError: A shape, a size, the style or the line width is wrong; names all faults.

    Source: DWPose and ControlNet's drawer (limbs as filled ellipses, 0.6 bright, joints on top), see `topology`.
    """
    _check(keypoints, scores, height, width, style, line_width)
    rules = STYLES[style]
    line_width = default_line_width(style, height, width) if line_width is None else line_width
    canvas = _canvas_size(rules, height, width)
    points = _visible(keypoints, scores) * np.array([canvas[1] / width, canvas[0] / height])
    pen = _Pen.of_width(line_width * min(canvas) / min(height, width))
    video = np.zeros((len(points), height, width, 3), dtype=np.uint8)
    for picture, people in zip(video, points, strict=True):
        if np.isfinite(people).any():
            picture[:] = _finish(_draw_frame(people, canvas, pen, rules), (height, width), rules)
    return torch.from_numpy(video)


def _check(
    keypoints: Tensor, scores: Tensor, height: int, width: int, style: str, line_width: int | float | None
) -> None:
    faults = []
    if keypoints.ndim != 4 or keypoints.shape[2:] != (133, 2) or not keypoints.is_floating_point():
        faults.append(f"keypoints must be float [t, p, 133, 2], got {keypoints.dtype} {list(keypoints.shape)}")
    if tuple(scores.shape) != tuple(keypoints.shape[:3]) or not scores.is_floating_point():
        faults.append(f"scores must be float {list(keypoints.shape[:3])}, got {scores.dtype} {list(scores.shape)}")
    faults += [f"{name} must be at least 1, got {size}" for name, size in (("height", height), ("width", width))
               if size < 1]  # fmt: skip
    if style not in STYLES:
        faults.append(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if line_width is not None and not 0 < line_width <= _FAR:
        faults.append(f"line_width must be a positive number of pixels, got {line_width}")
    if faults:
        raise ValueError("; ".join(faults))


def _visible(keypoints: Tensor, scores: Tensor) -> np.ndarray:
    """Return [t, p, 134, 2] with NaN for what is not to be drawn; the last point is the neck."""
    points = keypoints.detach().cpu().double()
    shown = (scores.detach().cpu() >= SCORE_THRESHOLD) & points.isfinite().all(-1) & (points.abs() < _FAR).all(-1)
    points = points.where(shown[..., None], torch.nan)
    neck = (points[:, :, LEFT_SHOULDER] + points[:, :, RIGHT_SHOULDER]) / 2
    return torch.cat([points, neck[:, :, None]], dim=2).numpy()


def _canvas_size(rules: StyleRules, height: int, width: int) -> tuple[int, int]:
    if not rules.resampled or rules.native_short_side is None:
        return height, width
    scale = rules.native_short_side / min(height, width)
    # Sides to a multiple of 64, as VACE's annotator resizes.
    return max(64, round(height * scale / 64) * 64), max(64, round(width * scale / 64) * 64)


def _draw_frame(people: np.ndarray, size: tuple[int, int], pen: _Pen, rules: StyleRules) -> np.ndarray:
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    bodies = people[:, BODY_FROM_COCO]
    bodies[:, NECK] = people[:, -1]
    for (start, end), colour in zip(LIMBS, BODY_COLOURS, strict=False):
        dimmed = tuple(int(value * LIMB_BRIGHTNESS) for value in colour)
        for body in bodies:
            _limb(canvas, body[start], body[end], pen.limb_radius, dimmed)
    for joint, colour in enumerate(BODY_COLOURS):
        for body in bodies:
            _dot(canvas, body[joint], pen.joint_radius, colour)
    if rules.hands:
        for person in people:
            _hand(canvas, person[LEFT_HAND], pen)
            _hand(canvas, person[RIGHT_HAND], pen)
    for point in people[:, FACE].reshape(-1, 2):
        _dot(canvas, point, pen.face_radius, FACE_COLOUR)
    return canvas


def _finish(canvas: np.ndarray, size: tuple[int, int], rules: StyleRules) -> np.ndarray:
    if canvas.shape[:2] != size:
        shrinks = canvas.shape[0] * canvas.shape[1] >= size[0] * size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
        canvas = cv2.resize(canvas, size[::-1], interpolation=method)
    return canvas[..., ::-1] if rules.reversed_channels else canvas


def _hand(canvas: np.ndarray, points: np.ndarray, pen: _Pen) -> None:
    for (start, end), colour in zip(HAND_EDGES, HAND_COLOURS, strict=True):
        if np.isfinite(points[[start, end]]).all():
            cv2.line(canvas, _fixed(points[start]), _fixed(points[end]), colour, pen.hand_line, cv2.LINE_8, _SHIFT)
    for point in points:
        _dot(canvas, point, pen.hand_radius, HAND_POINT_COLOUR)


def _limb(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float, colour: Colour) -> None:
    difference = end - start
    if not np.isfinite(difference).all():
        return
    length = float(np.hypot(*difference))
    angle = float(np.degrees(np.arctan2(difference[1], difference[0])))
    axes = (max(round(length / 2 * 2**_SHIFT), 1), max(round(radius * 2**_SHIFT), 1))
    cv2.ellipse(canvas, _fixed((start + end) / 2), axes, angle, 0, 360, colour, cv2.FILLED, cv2.LINE_8, _SHIFT)


def _dot(canvas: np.ndarray, point: np.ndarray, radius: float, colour: Colour) -> None:
    if np.isfinite(point).all():
        cv2.circle(canvas, _fixed(point), round(radius * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_8, _SHIFT)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0]) * 2**_SHIFT), round(float(point[1]) * 2**_SHIFT)
