"""The review page of a preparation: every window of every clip, what became of it, why, and what it looks like.

    python -m data_prep.preview --clips DIR --output DATASET --page PAGE [--no-source]

Open PAGE/index.html in a browser; it loads nothing from a network. The page shows the people of the clips: keep it as
safe as the clips. With --no-source it holds no pixel of a clip, no file name and no free text. Give the settings of
the run, such as --num_frames, as they were given to it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regen_train.guard import GuardSettings
from regen_train.preparation.command import parse_options, told_in_words
from regen_train.preparation.preview import Drawing, Run, check_page_folder, items_of_run, survey_run, write_page
from regen_train.preparation.preview.collect import UNCHECKED
from regen_train.preparation.salt import load_salt
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import find_clips

PROG = "python -m data_prep.preview"


@dataclass(frozen=True)
class PageOptions:
    """What to show, and where.

    Args:
        clips: Folder of video files.
        output: The dataset's folder.
        page: Folder of the page: index.html and its pictures. A new one, or that of an older page.
        signals: Folder of signals, one folder a clip. Default: OUTPUT/.work/signals/CLIP where it exists, else
            CLIPS/signals/CLIP.
        salt_file: The secret from which samples' keys are made. Default: ~/.config/regen_train/salt.
        no_source: Write no pixel of a clip, no file name and no free text.
        picture_height: Height of a picture in pixels; the page shows them smaller, and whole on a click.
        columns: How many frames of each window; up to half of them are ones that a reason names.
    """

    clips: Path
    output: Path
    page: Path
    signals: Path | None = None
    salt_file: Path | None = None
    no_source: bool = False
    picture_height: int = 240
    columns: int = 6


def main(args: Sequence[str] | None = None) -> int:
    """Write the page."""
    given = sys.argv[1:] if args is None else args
    spelled = ["--no_source=true" if word in {"--no-source", "--no_source"} else word for word in given]
    options, settings = parse_options(PROG, __doc__, [PageOptions, DatasetSettings], spelled)
    with told_in_words(PROG):
        check_page_folder(options.page)
        usual = (options.output / ".work" / "signals", options.clips / "signals")
        roots = usual if options.signals is None else (options.signals,)
        survey = survey_run(find_clips(options.clips), roots, settings)
        salt = load_salt(options.salt_file, dataset=options.output)
        run = Run(options.clips, survey, settings, GuardSettings(), lambda plan, number: UNCHECKED, salt)
        drawing = Drawing(not options.no_source, options.picture_height, options.columns)
        items = list(items_of_run(run, options.page, drawing))
        title = "Review without source pixels" if options.no_source else f"Review of {options.output.resolve().name}"
        path = write_page(options.page, items, title=title, source=drawing.source)
        print(f"{path}: {len(items)} items")
    return 0


if __name__ == "__main__":
    sys.exit(main())
