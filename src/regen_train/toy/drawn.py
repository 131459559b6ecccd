"""Short clips of a drawn walker, with exact signals: input for the demo where the user brings no video."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from regen_train.files import file_sha256
from regen_train.signals import Poses, write_signals
from regen_train.video import write_video

NUM_KEYPOINTS = 133
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (5, 11), (6, 12), (5, 6), (11, 12))
_FPS = 15.0


@dataclass(frozen=True)
class DrawnClip:
    """A clip and the folder of its signals."""

    video: Path
    signals: Path


def draw_clips(folder: Path, *, count: int, num_frames: int = 37, seed: int = 0) -> list[DrawnClip]:
    """Write clips of one walker each, 160x96 pixels at 15 fps, in H.264, and their signals.

    Args:
        folder: Gets ``clip-00.mp4`` and so on, and ``signals/clip-00/``.
        count: How many.
        num_frames: Frames of each.
        seed: Of colours, places and pace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw_clip(folder, number, num_frames, np.random.default_rng([seed, number])) for number in range(count)]


def _draw_clip(folder: Path, number: int, num_frames: int, random: np.random.Generator) -> DrawnClip:
    room = _room(random)
    colour = tuple(int(value) for value in random.integers(40, 256, 3))
    start, pace, phase = random.uniform(30, 70), random.uniform(0.5, 1.5), random.uniform(0, 2 * math.pi)
    points = np.stack([_walker(start + pace * t, 2 * math.pi * t / 15 + phase) for t in range(num_frames)])
    frames, masks = zip(*(_draw(room, walker, colour) for walker in points), strict=True)
    name = f"clip-{number:02d}"
    video = folder / f"{name}.mp4"
    write_video(video, torch.from_numpy(np.stack(frames)), _FPS)
    keypoints = torch.full((num_frames, 1, NUM_KEYPOINTS, 2), math.nan)
    scores = torch.zeros(num_frames, 1, NUM_KEYPOINTS)
    keypoints[:, 0, :17], scores[:, 0, :17] = torch.from_numpy(points).float(), 1.0
    write_signals(
        folder / "signals" / name,
        mask=torch.from_numpy(np.stack(masks)),
        people=Poses(keypoints, scores, None),
        caption="A person in plain clothes walks through a room with coloured walls and a bright floor.",
        source_sha256=file_sha256(video),
        meta={"extractor": "drawn, exact"},
    )
    return DrawnClip(video, folder / "signals" / name)


def _room(random: np.random.Generator) -> NDArray[np.uint8]:
    wall, floor = random.integers(60, 200, 3), random.integers(120, 240, 3)
    room = np.empty((96, 160, 3), np.uint8)
    room[:64], room[64:] = wall, floor
    stripes = (np.arange(160) // 12 % 2 * 24).astype(np.uint8)
    room[:64] += stripes[None, :, None]
    return room


def _walker(x: float, swing: float) -> NDArray[np.float64]:
    """Return the 17 COCO body points of a walker at ``x``, at a phase of the step."""
    step, arm = 7 * math.sin(swing), 6 * math.sin(swing + math.pi)
    head, shoulder, hip = (x, 22.0), 32.0, 54.0
    face = [head, (x - 1.5, 21), (x + 1.5, 21), (x - 3, 22), (x + 3, 22)]
    shoulders = [(x - 5, shoulder), (x + 5, shoulder)]
    elbows = [(x - 6 + arm / 2, 42), (x + 6 - arm / 2, 42)]
    wrists = [(x - 6 + arm, 51), (x + 6 - arm, 51)]
    hips = [(x - 4, hip), (x + 4, hip)]
    knees = [(x - 4 + step / 2, 67), (x + 4 - step / 2, 67)]
    ankles = [(x - 4 + step, 80), (x + 4 - step, 80)]
    return np.array([*face, *shoulders, *elbows, *wrists, *hips, *knees, *ankles])


def _draw(
    room: NDArray[np.uint8], walker: NDArray[np.float64], colour: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    frame, mask = room.copy(), np.zeros(room.shape[:2], np.uint8)
    corners = [tuple(round(value) for value in point) for point in walker]
    torso = np.array([corners[i] for i in (5, 6, 12, 11)], np.int32)
    for canvas, paint in ((frame, colour), (mask, (255,))):
        cv2.fillConvexPoly(canvas, torso, paint)
        for a, b in _LIMBS:
            cv2.line(canvas, corners[a], corners[b], paint, 6)
        cv2.circle(canvas, corners[0], 6, (220, 180, 150) if canvas is frame else paint, -1)
    return frame, mask
