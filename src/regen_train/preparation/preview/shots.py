"""Windows on their way into pictures: planned as the run planned them, and composed as far as they are shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regen_train.conditions import ComposedClip
from regen_train.files import file_sha256
from regen_train.preparation.compose import compose_clip, compose_windows
from regen_train.preparation.preview.outcomes import ClipOutcome, WindowOutcome
from regen_train.preparation.preview.strips import STRIPS_VERSION, choose_frames, draw_strips, write_strips
from regen_train.preparation.probe import Probed, probe_key
from regen_train.preparation.record import RunRecord, signals_stamp
from regen_train.preparation.survey import ClipPlan, survey_clip
from regen_train.shards import fingerprint_of

_FOLDER_DIGITS = 12
_HIDDEN = "text can be read in source and mask here, not in the sample; StructHuman is left out for it"


@dataclass(frozen=True)
class Drawing:
    """How windows are drawn.

    Args:
        source: Whether pixels of the source may be shown.
        height: Of a picture in pixels; smaller windows are not enlarged.
        num_frames: Pictures in a strip.
    """

    source: bool = True
    height: int = 240
    num_frames: int = 6


@dataclass(frozen=True)
class Shot:
    """A window to be drawn.

    Args:
        window: The source frame of each of its frames.
        places: Which of them to show.
        folder: Where its strips go.
        notes: More to know of its pictures.
    """

    window: tuple[int, ...]
    places: tuple[int, ...]
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> tuple[int, ...]:
        """The source frames to show."""
        return tuple(self.window[place] for place in self.places)


def plan_clip(clip: Path, record: RunRecord, outcome: ClipOutcome) -> ClipPlan:
    """Return the plan of a clip, as the run made it: pictures of anything else would belie the verdicts.

    Args:
        clip: The video file.
        record: Of the run.
        outcome: What became of the clip.

    Raises:
        ValueError: Clip or signals are not what they were.
        FileNotFoundError: Clip or signals are gone.
    """
    probed = outcome.probed
    assert probed is not None
    if not clip.is_file():
        raise FileNotFoundError(f"{clip} is gone")
    if not _is_same(clip, record, outcome, probed):
        raise ValueError("the clip has changed since the run; run the same preparation again")
    signals = record.signals / clip.stem
    if signals_stamp(signals) != outcome.recorded.signals:
        raise ValueError(f"its signals in {signals} have changed since the run; run the same preparation again")
    plan = survey_clip(clip, signals, record.settings, temporal_factor=record.temporal_factor, probed=probed)
    if [(window[0], window[-1]) for window in plan.windows] != [window.span for window in outcome.windows]:
        raise ValueError("it is cut otherwise than in the run, by another version; run the same preparation again")
    return plan


def _is_same(clip: Path, record: RunRecord, outcome: ClipOutcome, probed: Probed) -> bool:
    """Return whether a clip is what the run saw; one that was copied has another time, and is hashed."""
    return probe_key(clip, record.probe) == outcome.recorded.rows["probe"] or file_sha256(clip) == probed.sha256


def plan_shot(
    record: RunRecord, window: tuple[int, ...], outcome: WindowOutcome, drawing: Drawing, pictures: Path
) -> Shot:
    """Choose the frames of a window to show, and the folder of their strips: another one for other pictures.

    Args:
        record: Of the run.
        window: The source frame of each of its frames.
        outcome: What became of it.
        drawing: How it is drawn.
        pictures: The folder of all such folders.
    """
    flagged = {frame for reason in outcome.reasons if reason.severity != "note" for frame in reason.frames}
    places = tuple(choose_frames(window, flagged, count=drawing.num_frames))
    look = {
        "version": STRIPS_VERSION,
        "source": drawing.source,
        "height": drawing.height,
        "frames": [window[place] for place in places],
        "strips": _conditions(record, drawing, has_depth=True),
        "window": outcome.fingerprint,  # knows clip, signals and settings
    }
    notes = (_HIDDEN,) if record.hides_text and drawing.source else ()
    return Shot(window, places, pictures / f"{outcome.key}-{fingerprint_of(look)[:_FOLDER_DIGITS]}", notes)


def draw_shots(record: RunRecord, plan: ClipPlan, shots: Sequence[Shot], drawing: Drawing) -> str:
    """Draw windows of a clip; return why one could not be drawn, or nothing.

    Only the frames that are shown are composed, to save time; so depth has the gray scale of these frames, which may be
    a little wider in the sample.
    """
    has_depth = plan.has_depth or record.settings.standin_depth is not None
    conditions = _conditions(record, drawing, has_depth=has_depth)
    shown = replace(plan, windows=tuple(shot.frames for shot in shots))
    try:
        for shot, clip in zip(shots, _compose(record, shown, conditions, source=drawing.source), strict=True):
            everything = range(len(shot.places))
            write_strips(shot.folder, draw_strips(clip, everything, height=drawing.height, source=drawing.source))
    except ValueError as error:
        return str(error)
    return ""


def _conditions(record: RunRecord, drawing: Drawing, *, has_depth: bool) -> list[str]:
    """Return the condition videos to draw: the run's own, and depth for what StructAll was made of."""
    conditions = ["depth"] if has_depth else []
    if "structall" in record.conditions:
        conditions.append("structall")
    if "structhuman" in record.conditions and drawing.source and not record.hides_text:
        conditions.append("structhuman")
    return conditions


def _compose(record: RunRecord, plan: ClipPlan, conditions: Sequence[str], *, source: bool) -> Iterator[ComposedClip]:
    """Compose windows; one that breaks its promise is drawn for those who may see it, and for nobody else."""
    try:
        if source:
            yield from (window.clip for window in compose_windows(plan, record.settings, conditions, record.guard))
        else:
            yield from compose_clip(plan, record.settings, conditions, record.guard)
    except OSError as error:  # a fault of the clip; one of the page's folder must stop the run
        raise ValueError(f"it cannot be read: {error}") from error
