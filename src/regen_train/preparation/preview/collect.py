"""From a preparation run to the items of its page: every window, what became of it, and its strips."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regen_train.preparation.preview.items import PageItem, Reason
from regen_train.preparation.preview.outcomes import ClipOutcome
from regen_train.preparation.preview.page import PAGE_NAME
from regen_train.preparation.preview.shots import Drawing, Shot, draw_shots, plan_clip, plan_shot
from regen_train.preparation.preview.strips import find_strips, frame_end, strip_height
from regen_train.preparation.record import RunRecord
from regen_train.preparation.survey import ClipPlan

logger = logging.getLogger(__name__)

PICTURES = "pictures"
_LOG_EVERY = 25  # windows


@dataclass(frozen=True)
class Run:
    """A preparation run, as far as its page needs it.

    Args:
        clips: The folder of video files.
        record: Its settings.
        outcomes: What became of its clips.
    """

    clips: Path
    record: RunRecord
    outcomes: Sequence[ClipOutcome]

    @property
    def num_windows(self) -> int:
        """Windows of all clips."""
        return sum(len(outcome.windows) for outcome in self.outcomes)


def items_of_run(run: Run, page: Path, drawing: Drawing) -> Iterator[PageItem]:
    """Draw what is missing and yield the items of a run, clip by clip: its windows, or one item if it was refused.

    Pictures lie in ``PAGE/pictures``; those of the same window, settings and frames are kept from run to run, all
    others are removed at the end, so that no source pixel stays behind where none is wanted.

    Args:
        run: What to list.
        page: The page's folder.
        drawing: How.
    """
    used: set[str] = set()
    done = 0
    for number, outcome in enumerate(run.outcomes):
        if outcome.refused is not None:
            # The number says nothing of the clip; its checksum could not always be had.
            yield PageItem(f"clip-{number:04d}", "failed", (outcome.refused,), name=outcome.name)
        for item in _clip_items(run, outcome, page, drawing):
            used |= {Path(path).parent.name for path in item.strips.values()}
            done += 1
            if done % _LOG_EVERY == 0 or done == run.num_windows:
                logger.info("drawn: %d of %d windows", done, run.num_windows)
            yield item
    if (page / PICTURES).is_dir():
        for folder in (page / PICTURES).iterdir():
            if folder.name not in used:
                shutil.rmtree(folder)


def check_page_folder(page: Path) -> None:
    """Raise FileExistsError if the folder holds anything but a page: pictures are removed from it."""
    foreign = sorted({path.name for path in page.iterdir()} - {PAGE_NAME, PICTURES}) if page.exists() else []
    if foreign:
        raise FileExistsError(f"{page} holds more than a page: {', '.join(foreign[:5])}; name a new folder for --page")


def _clip_items(run: Run, outcome: ClipOutcome, page: Path, drawing: Drawing) -> Iterator[PageItem]:
    """Yield the items of a clip's windows; it is read only if it has any, and composed only if pictures are missing."""
    items = [
        PageItem(w.key, w.verdict, w.reasons, name=outcome.name, span=w.span, notes=(*outcome.notes, *w.notes))
        for w in outcome.windows
    ]
    if not items:
        return
    try:
        plan = plan_clip(run.clips / outcome.name, run.record, outcome)
    except (ValueError, OSError) as error:
        yield from (_undrawn(item, str(error)) for item in items)
        return
    shots = [
        plan_shot(run.record, plan.windows[number], outcome.windows[number], drawing, page / PICTURES)
        for number in range(len(items))
    ]
    fault = draw_shots(run.record, plan, [shot for shot in shots if not shot.folder.is_dir()], drawing)
    for item, shot in zip(items, shots, strict=True):
        yield _with_strips(replace(item, caption=plan.caption), shot, plan, page, drawing, fault)


def _with_strips(item: PageItem, shot: Shot, plan: ClipPlan, page: Path, drawing: Drawing, fault: str) -> PageItem:
    strips = {name: path.relative_to(page).as_posix() for name, path in find_strips(shot.folder).items()}
    if not strips:
        return _undrawn(item, fault)
    height = strip_height(plan.bucket.height, drawing.height)
    return replace(
        item,
        notes=(*item.notes, *shot.notes, *([] if plan.has_depth or "depth" not in strips else ["stand-in depth"])),
        frames=shot.frames,
        ends=tuple(frame_end(shot.window, place) for place in shot.places),
        frame_size=(height, round(plan.bucket.width * height / plan.bucket.height)),
        strips=strips,
    )


def _undrawn(item: PageItem, why: str) -> PageItem:
    return replace(item, reasons=(*item.reasons, Reason("undrawn", "note", message=f"not drawn: {why}")))
