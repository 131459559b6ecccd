"""Which clips are shown, and their pictures, strips and videos."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from regen_train.demo.control import Recoloured
from regen_train.demo.methods import METHODS, Treated
from regen_train.demo.pictures import Panel, ShownClip, write_side_by_side, write_strip
from regen_train.demo.settings import VARIANTS
from regen_train.demo.subjects import Subject, Subjects

Videos = Sequence[UInt8[Tensor, "t h w 3"]]

_OTHERS = ("blur", "pixelate", "blackout", "reconstruction", "base-structhuman", "base-structall")
_STRIP_CLIPS = 4

STRIP_NAME, STRIPS_NAME, VIDEOS_NAME = "strip.png", "strips", "videos"


def shown_clips(subjects: Subjects, treated: Treated, num_alone: int, num_pairs: int) -> list[ShownClip]:
    """Pick the first clips of one person, and of two.

    Args:
        subjects: All held-out clips.
        treated: Method to its videos of all subjects.
        num_alone: How many of one person.
        num_pairs: How many of two.
    """
    first_pair = len(subjects.alone)
    numbers = [*range(min(num_alone, first_pair)), *(first_pair + n for n in range(num_pairs))]
    everyone = subjects.all
    return [_shown(everyone[number], treated, number) for number in numbers if number < len(everyone)]


def shown_words(changed: Sequence[Recoloured], before: Videos, after: Videos, count: int) -> list[ShownClip]:
    """Pick the first clips with one word changed.

    Args:
        changed: The clips with their changed captions.
        before: Painted by the captions as they were.
        after: Painted by the changed ones.
        count: How many.
    """
    return [
        ShownClip(
            f"{item.old} \N{RIGHTWARDS ARROW} {item.new}",
            item.subject.held_out.described.caption,
            [
                Panel("Original", "source", item.subject.composed.frames),
                Panel(f"“{item.old}”", "ours", old),
                Panel(f"“{item.new}”", "ours", new),
            ],
            (),
        )
        for item, old, new in zip(changed[:count], before, after, strict=False)
    ]


def write_pictures(folder: Path, clips: Sequence[ShownClip], fps: float) -> None:
    """Write ``strip.png`` with a few clips, and of each clip a strip over time and a video.

    Args:
        folder: Gets ``strip.png``, ``strips/`` and ``videos/``.
        clips: What is shown.
        fps: Frames a second of the videos.
    """
    for name in (STRIPS_NAME, VIDEOS_NAME):
        (folder / name).mkdir(exist_ok=True)
    # One person, and two who cross, so that both are seen.
    chosen = [*clips[: _STRIP_CLIPS - 1], *clips[-1:]]
    middle = len(clips[0].panels[0].frames) // 2
    write_strip(folder / STRIP_NAME, [[panel.frames[middle] for panel in clip.panels] for clip in chosen])
    for number, clip in enumerate(clips):
        rows = [[panel.frames[frame] for frame in range(0, len(panel.frames), 2)] for panel in clip.panels]
        write_strip(folder / STRIPS_NAME / f"clip-{number}.png", rows)
        videos = [panel.frames for panel in clip.panels]
        write_side_by_side(folder / VIDEOS_NAME / f"clip-{number}.mp4", videos, fps)


def _shown(subject: Subject, treated: Treated, number: int) -> ShownClip:
    original, caption = subject.held_out.original, subject.held_out.described.caption
    panels = [Panel("Original", "source", subject.composed.frames)]
    for variant in VARIANTS:
        label = METHODS[variant].label
        panels += [
            Panel(f"{label}: what the model is given", "given", subject.composed.conditions[variant]),
            Panel(f"{label}: what it paints", "ours", treated[variant][number]),
        ]
    others = [
        Panel(METHODS[name].label, "other", treated[name][number]) for name in _OTHERS if number < len(treated[name])
    ]
    return ShownClip(_sentence(original.caption, len(original.spec.people)), caption, panels, others)


def _sentence(caption: str, people: int) -> str:
    """Return what a caption says of the people."""
    return ".".join(caption.split(".")[:people]) + "."
