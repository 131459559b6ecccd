"""From a preparation run to the items of its page: every window, what became of it, and its strips."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from regen_train.conditions import ComposedClip
from regen_train.files import file_sha256
from regen_train.guard import GuardSettings
from regen_train.preparation.compose import compose_clip, compose_windows
from regen_train.preparation.preview.items import PageItem, Reason, VerdictName
from regen_train.preparation.preview.page import PAGE_NAME
from regen_train.preparation.preview.strips import (
    STRIPS_VERSION,
    choose_frames,
    draw_strips,
    find_strips,
    frame_end,
    strip_height,
    write_strips,
)
from regen_train.preparation.salt import salted
from regen_train.preparation.settings import ConditionName, DatasetSettings
from regen_train.preparation.survey import ClipPlan, Survey, Verdict, survey_clips
from regen_train.shards import fingerprint_of

logger = logging.getLogger(__name__)

PICTURES = "pictures"
_TEMPORAL_FACTOR = 4  # pixel frames per latent frame of Wan's VAE
_READABLE = "text can be read here and is blurred in the sample"
_LOG_EVERY = 25  # windows
_SOURCE_DIGITS = 24
_FOLDER_DIGITS = 12


@dataclass(frozen=True)
class Outcome:
    """What became of a window, or of a clip that gave none.

    Args:
        verdict: The gate's, or failed.
        reasons: Why.
    """

    verdict: VerdictName
    reasons: tuple[Reason, ...] = ()


UNCHECKED = Outcome("unchecked", (Reason("unchecked", "note", message="no gate has inspected this window"),))


@dataclass(frozen=True)
class Run:
    """A preparation run, as far as its page needs it.

    Args:
        clips: The folder of video files.
        survey: Its clips, fit and refused.
        settings: How the windows are composed.
        guard: How masks are mended.
        outcome: Says what became of a window, given its clip and its number in it.
        salt: The secret of the keys.
    """

    clips: Path
    survey: Survey
    settings: DatasetSettings
    guard: GuardSettings
    outcome: Callable[[ClipPlan, int], Outcome]
    salt: bytes = field(repr=False)


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


def items_of_run(run: Run, page: Path, drawing: Drawing) -> Iterator[PageItem]:
    """Draw what is missing and yield the items of a run: the refused clips, then every window, clip by clip.

    Pictures lie in ``PAGE/pictures``; those of the same window, settings and frames are kept from run to run, all
    others are removed at the end, so that no source pixel stays behind where none is wanted.

    Args:
        run: What to list.
        page: The page's folder.
        drawing: How.
    """
    used: set[str] = set()
    for verdict in run.survey.refused:
        yield _refused_item(run, verdict)
    total, done = sum(len(plan.windows) for plan in run.survey.plans), 0
    for plan in run.survey.plans:
        for item in _clip_items(run, plan, page, drawing):
            used |= {Path(path).parent.name for path in item.strips.values()}
            done += 1
            if done % _LOG_EVERY == 0 or done == total:
                logger.info("drawn: %d of %d windows", done, total)
            yield item
    if (page / PICTURES).is_dir():
        for folder in (page / PICTURES).iterdir():
            if folder.name not in used:
                shutil.rmtree(folder)


def survey_run(clips: Sequence[Path], roots: Sequence[Path], settings: DatasetSettings) -> Survey:
    """Survey clips whose signals lie in several places.

    Args:
        clips: Video files.
        roots: Folders of signals folders; each clip takes the first that has one for it, else the last of all.
        settings: What the samples must be.
    """
    plans: dict[str, ClipPlan] = {}
    refused: list[Verdict] = []
    for clip in clips:
        root = next((root for root in roots if (root / clip.stem).is_dir()), roots[-1])
        found = survey_clips([clip], root, settings, temporal_factor=_TEMPORAL_FACTOR)
        refused += found.refused
        for plan in found.plans:
            twin = plans.setdefault(plan.source_sha256, plan)
            if twin is not plan:
                refused.append(Verdict(clip.name, used=False, reason=f"is the same file as {twin.path.name}"))
    return Survey(tuple(plans.values()), tuple(refused))


def check_page_folder(page: Path) -> None:
    """Raise FileExistsError if the folder holds anything but a page: pictures are removed from it."""
    foreign = sorted({path.name for path in page.iterdir()} - {PAGE_NAME, PICTURES}) if page.exists() else []
    if foreign:
        raise FileExistsError(f"{page} holds more than a page: {', '.join(foreign[:5])}; name a new folder for --page")


def _refused_item(run: Run, verdict: Verdict) -> PageItem:
    key = _clip_key(run, file_sha256(run.clips / verdict.clip))
    return PageItem(key, "reject", (Reason("unfit", message=verdict.reason),), name=verdict.clip)


def _clip_items(run: Run, plan: ClipPlan, page: Path, drawing: Drawing) -> Iterator[PageItem]:
    """Yield a clip's items; the clip is composed only if pictures of one are missing."""
    shots = [_plan_shot(run, plan, number, page, drawing) for number in range(len(plan.windows))]
    fault = _draw_shots(run, plan, [shot for shot in shots if not shot.folder.is_dir()], drawing)
    bucket = plan.bucket
    height = strip_height(bucket.height, drawing.height)
    for shot in shots:
        strips = {name: path.relative_to(page).as_posix() for name, path in find_strips(shot.folder).items()}
        if strips:
            window = plan.windows[shot.number]
            frames = tuple(window[place] for place in shot.places)
            ends = tuple(frame_end(window, place) for place in shot.places)
            size = height, round(bucket.width * height / bucket.height)
            yield replace(shot.item, frames=frames, ends=ends, frame_size=size, strips=strips)
        else:
            yield replace(shot.item, reasons=(*shot.item.reasons, Reason("undrawn", "note", message=fault)))


@dataclass(frozen=True)
class _Shot:
    """A window on its way into pictures: its number in the clip, the frames to show, where their strips go."""

    item: PageItem
    number: int
    places: list[int]
    folder: Path


def _plan_shot(run: Run, plan: ClipPlan, number: int, page: Path, drawing: Drawing) -> _Shot:
    outcome, window = run.outcome(plan, number), plan.windows[number]
    item = PageItem(
        key=f"{_clip_key(run, plan.source_sha256)}-{number:04d}",
        verdict=outcome.verdict,
        reasons=outcome.reasons,
        name=plan.path.name,
        caption=plan.caption,
        span=(window[0], window[-1]),
        notes=(str(plan.bucket), *plan.notes, *([_READABLE] if run.guard.text == "blur" else [])),
    )
    places = choose_frames(window, item.flagged, count=drawing.num_frames)
    look = {
        "version": STRIPS_VERSION,
        "source": drawing.source,
        "height": drawing.height,
        "frames": [window[place] for place in places],
        "window": list(window),
        "bucket": str(plan.bucket),
        "signals": plan.signals_sha256,
        "settings": run.settings.sample_dict(),
        "guard": run.guard.to_dict(),
    }
    name = f"{item.key}-{fingerprint_of(look)[:_FOLDER_DIGITS]}"
    return _Shot(item, number, places, page / PICTURES / name)


def _draw_shots(run: Run, plan: ClipPlan, shots: list[_Shot], drawing: Drawing) -> str:
    """Draw windows of a clip; return why one could not be drawn, or nothing."""
    conditions: list[ConditionName] = ["structall", "depth"]
    if not plan.has_depth and run.settings.standin_depth is None:
        conditions = []
    if drawing.source:
        conditions.append("structhuman")
    todo = replace(plan, windows=tuple(plan.windows[shot.number] for shot in shots))
    try:
        for shot, clip in zip(shots, _compose(run, todo, conditions, source=drawing.source), strict=True):
            strips = draw_strips(clip, shot.places, height=drawing.height, source=drawing.source)
            write_strips(shot.folder, strips)
    except ValueError as error:
        return f"not drawn: {error}"
    return ""


def _compose(run: Run, plan: ClipPlan, conditions: list[ConditionName], *, source: bool) -> Iterator[ComposedClip]:
    """Compose windows; one that breaks its promise is drawn for those who may see it, and for nobody else."""
    try:
        if source:
            yield from (window.clip for window in compose_windows(plan, run.settings, conditions, run.guard))
        else:
            yield from compose_clip(plan, run.settings, conditions, run.guard)
    except OSError as error:  # a fault of the clip; one of the page's folder must stop the run
        raise ValueError(f"cannot be read: {error}") from error


def _clip_key(run: Run, source_sha256: str) -> str:
    return salted(run.salt, "source", source_sha256)[:_SOURCE_DIGITS]
