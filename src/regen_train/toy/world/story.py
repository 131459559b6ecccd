"""Draw clips: how many people, who they are, what they do, and where."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from regen_train.toy.world.identity import Identity, draw_identity, keyed_random
from regen_train.toy.world.motion import Action, Motion, Side
from regen_train.toy.world.palette import CLOTHES, pick_paint
from regen_train.toy.world.scene import WALL_SIZE, draw_scene
from regen_train.toy.world.spec import MAX_PEOPLE, ClipSpec, Passed, Person, size_faults

Story = Literal["any", "apart", "crossing", "handover", "enter", "leave"]

_STRIDE = 0.64
"""How far a cycle of walking goes, in nominal heights."""


@dataclass(frozen=True)
class WorldOptions:
    """What clips shall show.

    Args:
        min_people: Fewest people in a clip, 1 to 3.
        max_people: Most people in a clip.
        min_size: Smallest nominal height of a person, in frame heights; above the wall's 0.42.
        max_size: Largest.
        story: ``apart``: each by themselves; ``crossing``: two walk past each other; ``handover``: one hands a thing
            to another; ``enter``: the last person comes in at ``border_frame``; ``leave``: goes out there; ``any``:
            drawn for each clip among those fit for its number of people.
        actions: What people do by themselves.
        border_frame: Frame of entering or leaving; None for the middle of the clip.
        num_identities: Draw people from this many, so that clips share them; None for new people in each clip.

    Raises:
        ValueError: A number is out of range, or the story needs more people; names all faults.
    """

    min_people: int = 1
    max_people: int = 3
    min_size: int | float = 0.55
    max_size: int | float = 0.85
    story: Story = "any"
    actions: tuple[Action, ...] = ("walk", "wave", "squat", "raise", "stand")
    border_frame: int | None = None
    num_identities: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if not 1 <= self.min_people <= self.max_people <= MAX_PEOPLE:
            faults.append(f"people must be 1 to {MAX_PEOPLE}, got {self.min_people} to {self.max_people}")
        if not WALL_SIZE < self.min_size <= self.max_size <= 1.2:
            faults.append(f"sizes must be {WALL_SIZE} to 1.2, got {self.min_size} to {self.max_size}")
        if self.story not in get_args(Story):
            faults.append(f"story must be one of {', '.join(get_args(Story))}, got {self.story!r}")
        if self.story in ("crossing", "handover") and self.min_people < 2:
            faults.append(f"story {self.story} needs min_people of at least 2, got {self.min_people}")
        known = [action for action in get_args(Action) if action not in ("give", "take")]
        if not self.actions or not set(self.actions) <= set(known):
            faults.append(f"actions must be among {', '.join(known)}, got {', '.join(self.actions) or 'none'}")
        if self.num_identities is not None and self.num_identities < self.max_people:
            faults.append(f"num_identities must be at least max_people, {self.max_people}, got {self.num_identities}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class ClipFormat:
    """Length, size and rate of clips.

    Args:
        num_frames: 4n+1.
        height: Pixels, at least 32.
        width: Pixels, at least 32.
        fps: Frames a second; also sets how far people get in a clip.

    Raises:
        ValueError: One is out of range; names all faults.
    """

    num_frames: int = 9
    height: int = 64
    width: int = 64
    fps: int | float = 8.0

    def __post_init__(self) -> None:
        faults = size_faults(self.num_frames, self.height, self.width, self.fps)
        if faults:
            raise ValueError("; ".join(faults))


DEFAULT_FORMAT, DEFAULT_OPTIONS = ClipFormat(), WorldOptions()


def draw_clip(
    seed: int, number: int, form: ClipFormat = DEFAULT_FORMAT, options: WorldOptions = DEFAULT_OPTIONS
) -> ClipSpec:
    """Draw a clip. People, motions and room come from separate draws: none changes with another.

    Args:
        seed: Of the world.
        number: Of the clip.
        form: Its length, size and rate.
        options: What it shall show.
    """
    count = int(keyed_random(seed, number, "people").integers(options.min_people, options.max_people + 1))
    motions = _Director(keyed_random(seed, number, "motion"), form, options).motions(count)
    people = zip(_identities(seed, number, count, options.num_identities), motions, strict=True)
    passed = None
    if motions[0].action == "give":
        random = keyed_random(seed, number, "thing")
        passed = Passed("ball" if random.random() < 0.5 else "box", pick_paint(random, CLOTHES))
    return ClipSpec(
        people=tuple(Person(who, motion) for who, motion in people),
        scene=draw_scene(seed, number),
        num_frames=form.num_frames,
        height=form.height,
        width=form.width,
        fps=form.fps,
        passed=passed,
    )


def _identities(seed: int, number: int, count: int, pool: int | None) -> list[Identity]:
    if pool is None:
        return [draw_identity(seed, f"{number}-{person}") for person in range(count)]
    chosen = keyed_random(seed, number, "identity").choice(pool, count, replace=False)
    return [draw_identity(seed, int(person)) for person in chosen]


class _Director:
    """Draws what the people of a clip do."""

    def __init__(self, random: np.random.Generator, form: ClipFormat, options: WorldOptions) -> None:
        self.random, self.form, self.options = random, form, options

    def motions(self, count: int) -> list[Motion]:
        story = self.options.story
        if story == "any":
            fit: list[Story] = ["apart", "apart", "enter", "leave"]
            fit += ["crossing", "crossing", "handover", "handover"] if count > 1 else ["apart"] * 4
            story = fit[int(self.random.integers(len(fit)))]
        if story == "crossing":
            first = [self._walk(1.0, self._size(0.0, 0.45), 0.5), self._walk(-1.0, self._size(0.55, 1.0), 0.5)]
        elif story == "handover":
            first = self._handover()
        else:
            first = []
        others = count - len(first)
        places = [(place + 0.5) / others for place in range(others)]
        # Who looks on while a thing is handed over stands aside.
        places = [0.08, 0.92] if story == "handover" else places
        alone = [self._alone(places[place]) for place in self.random.permutation(len(places))[:others]]
        if story in ("enter", "leave"):
            alone[-1] = self._through_border(enters=story == "enter")
        return [*first, *alone]

    def _alone(self, place: float) -> Motion:
        action = self.options.actions[int(self.random.integers(len(self.options.actions)))]
        if action == "walk":
            return self._walk(1.0 if self.random.random() < 0.5 else -1.0, self._size(), place)
        place += float(self.random.uniform(-0.06, 0.06))
        back = self.random.random() < 0.08
        side: Side = "left" if self.random.random() < 0.5 else "right"
        return Motion(
            action=action,
            start=place,
            end=place,
            size=self._size(),
            yaw=float(self.random.uniform(-35, 35)) + (180.0 if back else 0.0),
            phase=float(self.random.uniform(0, 0.3 if action == "squat" else 1)),
            cycles=self._cycles(0.7, 0.9),
            side=side,
        )

    def _walk(self, direction: float, size: float, middle: float) -> Motion:
        cycles = self._cycles(0.75, 1.05)
        way = direction * cycles * _STRIDE * self._unit(size)
        middle += float(self.random.uniform(-0.08, 0.08))
        yaw, phase = direction * float(self.random.uniform(60, 90)), float(self.random.uniform(0, 1))
        return Motion("walk", middle - way / 2, middle + way / 2, size, yaw, phase, cycles)

    def _through_border(self, *, enters: bool) -> Motion:
        frame = self.options.border_frame
        frame = self.form.num_frames // 2 if frame is None else frame
        frames = self.form.num_frames - frame if enters else frame
        left = bool(self.random.random() < 0.5)
        size = self._size()
        # At the border the middle of the body is just outside: half of it shows at once.
        cycles = self._cycles(0.9, 1.1)
        way = cycles * _STRIDE * self._unit(size) * max(1, frames - 1) / max(1, self.form.num_frames - 1)
        border, inside = (0.0, way) if left else (1.0, 1.0 - way)
        start, end = (border, inside) if enters else (inside, border)
        yaw = float(self.random.uniform(65, 90)) * (1 if end > start else -1)
        motion = Motion("walk", start, end, size, yaw, float(self.random.uniform(0, 1)), cycles)
        limits = {"enter": frame} if enters else {"leave": frame}
        return Motion(**{**vars(motion), **limits})

    def _handover(self) -> list[Motion]:
        size, direction = self._size(0.2, 0.9), 1.0 if self.random.random() < 0.5 else -1.0
        middle, apart = 0.5 + float(self.random.uniform(-0.06, 0.06)), 0.29 * self._unit(size)
        turned = [float(self.random.uniform(55, 80)) for _ in range(2)]
        return [
            Motion("give", middle - direction * apart, middle - direction * apart, size, direction * turned[0]),
            Motion("take", middle + direction * apart, middle + direction * apart, size, -direction * turned[1]),
        ]

    def _size(self, low: float = 0.0, high: float = 1.0) -> float:
        span = self.options.max_size - self.options.min_size
        return float(self.options.min_size + span * self.random.uniform(low, high))

    def _cycles(self, slow: float, fast: float) -> float:
        """Draw how many cycles fit into the clip at so many a second."""
        return float(self.random.uniform(slow, fast)) * (self.form.num_frames - 1) / self.form.fps

    def _unit(self, size: float) -> float:
        """Return a nominal height in frame widths."""
        return size * self.form.height / self.form.width
