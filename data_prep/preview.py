"""The review page of a preparation: every window of every clip, what became of it, why, and what it looks like.

    python -m data_prep.preview --clips DIR --output DATASET --page PAGE [--no-source]

Shows the last run that came to its end, or all shards of a job array, with the settings of that run. Open
PAGE/index.html in a browser; it loads nothing from a network. The page shows the people of the clips: keep it as safe
as the clips. With --no-source it holds no pixel of a clip, no file name and no free text.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regen_train.preparation.command_line import parse_options, told_in_words
from regen_train.preparation.preview import Drawing, Run, check_page_folder, items_of_run, outcomes_of_run, write_page
from regen_train.preparation.preview.items import VERDICTS
from regen_train.preparation.record import RunRecord, read_run_record
from regen_train.preparation.report import count_of
from regen_train.preparation.survey import find_clips
from regen_train.preparation.work import WorkFolder

PROG = "python -m data_prep.preview"


@dataclass(frozen=True)
class PageOptions:
    """What to show, and where.

    Args:
        clips: Folder of video files.
        output: The dataset's folder.
        page: Folder of the page: index.html and its pictures. A new one, or that of an older page.
        work: The run's work folder. Default: OUTPUT/.work.
        no_source: Write no pixel of a clip, no file name and no free text.
        picture_height: Height of a picture in pixels; the page shows them smaller, and whole on a click.
        columns: How many frames of each window; up to half of them are ones that a reason names.
    """

    clips: Path
    output: Path
    page: Path
    work: Path | None = None
    no_source: bool = False
    picture_height: int = 240
    columns: int = 6


def main(args: Sequence[str] | None = None) -> int:
    """Write the page."""
    given = sys.argv[1:] if args is None else args
    spelled = ["--no_source=true" if word in {"--no-source", "--no_source"} else word for word in given]
    (options,) = parse_options(PROG, __doc__, [PageOptions], spelled).values()
    with told_in_words(PROG):
        check_page_folder(options.page)
        work = WorkFolder(options.output / ".work" if options.work is None else options.work)
        record = read_run_record(work)
        _tell_what_is_missing(record, options.clips)
        run = Run(options.clips, record, outcomes_of_run(work, record))
        drawing = Drawing(not options.no_source, options.picture_height, options.columns)
        items = list(items_of_run(run, options.page, drawing))
        title = "Review without source pixels" if options.no_source else f"Review of {options.output.resolve().name}"
        path = write_page(options.page, items, title=title, source=drawing.source)
        counts = Counter(item.verdict for item in items)
        print(f"{path}: {', '.join(f'{counts[name]} {name}' for name in VERDICTS if counts[name]) or 'no clip'}")
    return 0


def _tell_what_is_missing(record: RunRecord, clips: Path) -> None:
    new = {clip.name for clip in find_clips(clips)} - set(record.clips)
    if record.missing:
        shards = ", ".join(map(str, record.missing))
        print(f"not on the page: the clips of shards not prepared yet: {shards}", file=sys.stderr)
    elif new:
        print(f"not on the page: {count_of(len(new), 'clip')} that came after the run", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
