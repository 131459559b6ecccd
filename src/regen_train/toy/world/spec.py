"""A clip before it is drawn: who, what they do, where, and at which size."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regen_train.toy.world.body import Array
from regen_train.toy.world.identity import Identity
from regen_train.toy.world.motion import ACTIONS, Motion
from regen_train.toy.world.palette import Paint
from regen_train.toy.world.scene import Scene

MAX_PEOPLE = 3
_SMALLEST = 32
"""Pixels: nobody can be made out in a smaller frame."""


@dataclass(frozen=True)
class Person:
    """Somebody who does something."""

    identity: Identity
    motion: Motion


@dataclass(frozen=True)
class Passed:
    """A thing that one hands to another.

    Args:
        kind: What it is.
        paint: Its colour.
        giver: Number of the person who has it first; their motion is ``give``.
        taker: Number of the one who gets it; their motion is ``take``.
    """

    kind: Literal["ball", "box"]
    paint: Paint
    giver: int = 0
    taker: int = 1


@dataclass(frozen=True)
class ClipSpec:
    """All that decides a clip.

    Args:
        people: At most three.
        scene: The room.
        num_frames: 4n+1.
        height: Pixels, at least 32.
        width: Pixels, at least 32.
        fps: Frames a second; for the video file.
        passed: A thing handed over, if any.

    Raises:
        ValueError: An argument is out of range, or people and thing do not fit together; names all faults.
    """

    people: tuple[Person, ...]
    scene: Scene
    num_frames: int = 9
    height: int = 64
    width: int = 64
    fps: int | float = 8.0
    passed: Passed | None = None

    def __post_init__(self) -> None:
        faults = size_faults(self.num_frames, self.height, self.width, self.fps)
        if len(self.people) > MAX_PEOPLE:
            faults.append(f"at most {MAX_PEOPLE} people, got {len(self.people)}")
        for number, person in enumerate(self.people):
            faults += [f"person {number}: {fault}" for fault in _motion_faults(person.motion, self.num_frames)]
        faults += self._passed_faults()
        if faults:
            raise ValueError("; ".join(faults))

    def _passed_faults(self) -> list[str]:
        actions = [person.motion.action for person in self.people]
        if self.passed is None:
            return ["give and take need something passed"] if {"give", "take"} & set(actions) else []
        numbers = (self.passed.giver, self.passed.taker)
        found = [actions[number] if 0 <= number < len(actions) else "nobody" for number in numbers]
        return [] if found == ["give", "take"] else [f"passed needs a giver and a taker, got {' and '.join(found)}"]

    @property
    def times(self) -> Array:
        """Share of the clip gone by in each frame, [t]."""
        return np.linspace(0.0, 1.0, self.num_frames)

    def present(self, number: int) -> list[bool]:
        """Tell for each frame whether a person has come and not gone."""
        motion = self.people[number].motion
        leave = self.num_frames if motion.leave is None else motion.leave
        return [motion.enter <= frame < leave for frame in range(self.num_frames)]

    def place(self, number: int) -> Array:
        """Return where a person's middle is in each frame, in frame widths, [t]."""
        motion = self.people[number].motion
        last = (self.num_frames if motion.leave is None else motion.leave) - 1
        share = (np.arange(self.num_frames) - motion.enter) / max(1, last - motion.enter)
        return np.asarray(motion.start + (motion.end - motion.start) * share)

    def passed_path(self) -> tuple[Array, Array, Array]:
        """Return where the thing and the hands of giver and taker are.

        Returns:
            Three of [t, 2]: (right, up) in nominal heights; thing and giver's hand from the giver's feet, the taker's
            hand from the taker's. They depend on motions only, not on who moves.
        """
        assert self.passed is not None
        giver, taker = self.passed.giver, self.passed.taker
        unit = self.people[giver].motion.size * self.height / self.width
        gap = (self.place(taker) - self.place(giver)) / unit
        times = self.times
        along = 0.26 + 0.24 * _ramp(times, 0.1, 0.42) + 0.24 * _ramp(times, 0.58, 0.9)
        up = 0.53 + 0.09 * _ramp(times, 0.1, 0.42) - 0.09 * _ramp(times, 0.58, 0.9)
        thing = np.stack([along * gap, up], axis=-1)
        lets_go, takes = _ramp(times, 0.55, 0.85)[:, None], _ramp(times, 0.1, 0.45)[:, None]
        rest = np.stack([0.2 * gap, np.full_like(gap, 0.46)], axis=-1)
        from_taker = thing - np.stack([gap, np.zeros_like(gap)], axis=-1)
        giving = (1 - lets_go) * thing + lets_go * rest
        return thing, giving, takes * from_taker + (1 - takes) * rest * [-1.0, 1.0]


def size_faults(num_frames: int, height: int, width: int, fps: int | float) -> list[str]:
    """Return what is wrong with the size of a clip."""
    faults = []
    if num_frames < 1 or num_frames % 4 != 1:
        below = max(1, (num_frames - 1) // 4 * 4 + 1)
        faults.append(f"num_frames must be 4n+1, got {num_frames}; nearest are {below} and {below + 4}")
    faults += [f"{name} must be at least {_SMALLEST} pixels, got {size}"
               for name, size in (("height", height), ("width", width)) if size < _SMALLEST]  # fmt: skip
    if not 0 < fps < np.inf:
        faults.append(f"fps must be a positive number, got {fps}")
    return faults


def _motion_faults(motion: Motion, num_frames: int) -> list[str]:
    faults = []
    if motion.action not in ACTIONS:
        faults.append(f"action must be one of {', '.join(ACTIONS)}, got {motion.action!r}")
    if not 0.2 <= motion.size <= 1.2:
        faults.append(f"size must be 0.2 to 1.2 frame heights, got {motion.size}")
    leave = num_frames if motion.leave is None else motion.leave
    if not 0 <= motion.enter < leave <= num_frames:
        faults.append(f"enter and leave must be frames in order, of {num_frames}, got {motion.enter} and {leave}")
    return faults


def _ramp(times: Array, start: float, end: float) -> Array:
    share = np.clip((times - start) / (end - start), 0.0, 1.0)
    return np.asarray(share * share * (3 - 2 * share))
