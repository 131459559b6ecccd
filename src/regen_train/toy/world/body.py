"""Joints in space: from proportions and a motion to where every joint is, frame by frame.

Lengths are in nominal heights of a person. In a body's own axes x points to its left, y up from the floor, z forward.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regen_train.toy.world.identity import Identity
from regen_train.toy.world.motion import Motion

Array = NDArray[np.float64]
Points = dict[str, Array]
"""Joint by name, each [t, 3]; paired ones end with ``_left`` or ``_right``."""

SIDES = (("left", 1.0), ("right", -1.0))

_FORWARD, _BACK = (0.0, 0.0, 1.0), (0.0, -0.3, -1.0)


@dataclass(frozen=True)
class Lengths:
    """Lengths and half-widths of a body, in nominal heights."""

    thigh: float
    shin: float
    ankle: float
    foot: float
    trunk: float
    neck: float
    head: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    hand: float

    @classmethod
    def of(cls, person: Identity) -> "Lengths":
        """Return the lengths of somebody."""
        tall, legs = person.height, person.legs
        return cls(
            thigh=0.222 * tall * legs,
            shin=0.205 * tall * legs,
            ankle=0.03 * tall,
            foot=0.085 * tall,
            trunk=0.3 * tall,
            neck=0.145 * tall,
            head=0.088 * person.head,
            shoulder=0.1 * tall * person.shoulders,
            hip=0.055 * tall * person.build,
            upper_arm=0.155 * tall,
            forearm=0.14 * tall,
            hand=0.055 * tall,
        )


def pose_body(person: Identity, motion: Motion, times: Array, reach: Array | None = None) -> Points:
    """Return the joints of a body, in its own axes, turned so that z points to the camera and x to the right.

    Args:
        person: Gives lengths.
        motion: Gives movement.
        times: Share of the clip gone by in each frame, 0 to 1, [t].
        reach: For ``give`` and ``take``: (right, up) from the feet's place to what the hand follows, [t, 2].
    """
    size = Lengths.of(person)
    phase = 2 * np.pi * (motion.phase + motion.cycles * times)
    low = _lowered(motion, phase)
    points = _trunk(size, motion, phase, low)
    _pose_legs(points, size, motion, phase)
    for side, sign in SIDES:
        target, hint = _wrist(points, size, motion, _Arm(side, sign), times, phase, low, reach)
        shoulder = points[f"shoulder_{side}"]
        elbow, wrist = two_bones(shoulder, target, size.upper_arm, size.forearm, hint)
        along = _unit(wrist - elbow)
        points |= {f"elbow_{side}": elbow, f"wrist_{side}": wrist, f"hand_{side}": wrist + size.hand * along}
    return {name: turn(point, motion.yaw) for name, point in points.items()}


def turn(points: Array, yaw: int | float) -> Array:
    """Turn points [..., 3] about the vertical: 90 degrees bring what is in front to the right."""
    cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([x * cosine + z * sine, y, z * cosine - x * sine], axis=-1)


def two_bones(
    start: Array, target: Array, first: float, second: float, hint: tuple[float, float, float]
) -> tuple[Array, Array]:
    """Return the middle and end joint of a limb that reaches for a target, stretched where it is too far.

    Args:
        start: Where the limb begins, [t, 3].
        target: Where its end shall be, [t, 3].
        first: Length of the first bone.
        second: Length of the second.
        hint: Where the middle joint points to.
    """
    difference = target - start
    distance = np.linalg.norm(difference, axis=-1, keepdims=True)
    along = difference / np.maximum(distance, 1e-6)
    distance = np.clip(distance, abs(first - second) + 1e-3, 0.998 * (first + second))
    share = (first**2 + distance**2 - second**2) / (2 * first * distance)
    aside = np.asarray(hint) - along * (along @ np.asarray(hint))[:, None]
    middle = start + first * (along * share + _unit(aside) * np.sqrt(np.maximum(0.0, 1 - share**2)))
    return middle, start + along * distance


@dataclass(frozen=True)
class _Arm:
    side: str
    sign: float


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6))


def _stack(x: Array | float, y: Array | float, z: Array | float) -> Array:
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float64)


def _lowered(motion: Motion, phase: Array) -> Array:
    """How deep a squat is in each frame, 0 standing to 1."""
    return (0.5 - 0.5 * np.cos(phase)) if motion.action == "squat" else np.zeros_like(phase)


def _trunk(size: Lengths, motion: Motion, phase: Array, low: Array) -> Points:
    leg = size.thigh + size.shin + size.ankle
    bob = 0.012 * np.cos(2 * phase) - 0.012 if motion.action == "walk" else np.zeros_like(phase)
    pelvis = _stack(0.0, 0.99 * leg + bob - 0.22 * low, -0.1 * low)
    lean = 0.45 * low + (0.06 if motion.action == "walk" else 0.0)
    up = _stack(0.0, np.cos(lean), np.sin(lean))
    upper = _stack(0.0, np.cos(0.4 * lean), np.sin(0.4 * lean))
    neck = pelvis + size.trunk * up
    points = {"pelvis": pelvis, "neck": neck, "head": neck + size.neck * upper}
    for side, sign in SIDES:
        points[f"shoulder_{side}"] = neck + _stack(sign * size.shoulder, 0.0, 0.0) - 0.02 * up
        points[f"hip_{side}"] = pelvis + np.array([sign * size.hip, 0.0, 0.0])
    return points


def _pose_legs(points: Points, size: Lengths, motion: Motion, phase: Array) -> None:
    """Add knees, ankles, heels and toes."""
    for side, sign in SIDES:
        step = phase + (0.0 if sign > 0 else np.pi)
        if motion.action == "walk":
            swing = np.maximum(0.0, -np.sin(step))
            ankle = _stack(0.8 * sign * size.hip, size.ankle + 0.06 * swing, 0.16 * np.cos(step) - 0.02)
            pitch = 0.5 * np.cos(step) - 0.6 * swing
        else:
            spread = 1.1 if motion.action != "squat" else 1.9
            ankle = _stack(sign * spread * size.hip, np.full_like(phase, size.ankle), 0.0)
            pitch = np.zeros_like(phase)
        knee_hint = (0.35 * sign, 0.0, 1.0) if motion.action == "squat" else _FORWARD
        knee, ankle = two_bones(points[f"hip_{side}"], ankle, size.thigh, size.shin, knee_hint)
        outward = 0.25 * sign
        flat = _unit(_stack(outward, 0.6 * np.sin(pitch), np.ones_like(pitch)))
        sole = ankle - np.array([0.0, 0.55 * size.ankle, 0.0])
        points |= {f"knee_{side}": knee, f"ankle_{side}": ankle}
        points |= {f"heel_{side}": sole - 0.2 * size.foot * flat, f"toe_{side}": sole + 0.8 * size.foot * flat}


def _wrist(
    points: Points, size: Lengths, motion: Motion, arm: _Arm, times: Array, phase: Array, low: Array,
    reach: Array | None,
) -> tuple[Array, tuple[float, float, float]]:  # fmt: skip
    """Return where a wrist goes and where its elbow points."""
    shoulder, length = points[f"shoulder_{arm.side}"], 0.97 * (size.upper_arm + size.forearm)
    sign = arm.sign
    if motion.action == "walk":
        swing = -0.55 * np.cos(phase + (0.0 if sign > 0 else np.pi))
        return shoulder + 0.94 * length * _stack(0.12 * sign, -np.cos(swing), np.sin(swing) + 0.1), _BACK
    if motion.action == "raise":
        up = 2.85 * _smooth(np.clip(1.7 * times + 0.25 * motion.phase, 0, 1)) + 0.12
        return shoulder + length * _stack(sign * np.sin(up), -np.cos(up), 0.08), (sign, 0.0, -0.3)
    if motion.action == "wave" and arm.side == motion.side:
        beat = 0.09 * np.sin(2 * phase)
        return shoulder + _stack(sign * (0.13 + beat), 0.17 * size.trunk / 0.3, 0.05), (sign, -0.8, 0.0)
    if motion.action == "squat":
        ahead = 1.45 * low
        return shoulder + 0.95 * length * _stack(0.1 * sign, -np.cos(ahead), np.sin(ahead)), (sign, -0.5, -0.3)
    near = "right" if motion.yaw > 0 else "left"
    if reach is not None and arm.side == near:
        return _reaching(shoulder, motion, size, reach), (0.2 * sign, -1.0, -0.3)
    sway = 0.02 * np.sin(phase)
    return shoulder + length * _stack(0.14 * sign + sway, -0.97, 0.1), _BACK


def _reaching(shoulder: Array, motion: Motion, size: Lengths, reach: Array) -> Array:
    """Return where the wrist is when the hand is at a place in the picture's plane."""
    sine, cosine = np.sin(np.radians(motion.yaw)), np.cos(np.radians(motion.yaw))
    x = shoulder[:, 0] * 0.4
    hand = _stack(x, reach[:, 1], (reach[:, 0] - x * cosine) / sine)
    return hand - 0.6 * size.hand * _unit(hand - shoulder)


def _smooth(share: Array) -> Array:
    return share * share * (3 - 2 * share)
