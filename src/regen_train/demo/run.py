"""The order of the demo's steps, and what it ends with."""

import shutil
from functools import partial
from pathlib import Path

from regen_train.demo.control import measure_control, recolour
from regen_train.demo.follow import load_follower
from regen_train.demo.gallery import STRIP_NAME, STRIPS_NAME, VIDEOS_NAME, shown_clips, shown_words, write_pictures
from regen_train.demo.journal import Journal
from regen_train.demo.measure import Follow, measure
from regen_train.demo.methods import load_painters, paint, treat
from regen_train.demo.own import PRIVATE, OwnClip
from regen_train.demo.page import PAGE_NAME, Gallery, write_page
from regen_train.demo.report import REPORT_NAME, Report, write_report
from regen_train.demo.settings import VARIANTS, DemoFolder, DemoSettings
from regen_train.demo.steps import Machinery
from regen_train.demo.subjects import draw_subjects
from regen_train.demo.table import answers, figures_table, steps_table
from regen_train.pretrained import TOY
from regen_train.toy.form import TOY_FORM

_SHOWN = VARIANTS[0]
"""The variant on which one word is changed."""

_PAGES = (PAGE_NAME, REPORT_NAME, STRIP_NAME)
_MADE = ("clips", "held_out", "dataset", "own", "run", "exported", STRIPS_NAME, VIDEOS_NAME)


def run_demo(
    output: str = "demo_output",
    video: str | None = None,
    signals: str | None = None,
    steps: int = 200,
    *,
    pretrained: str = TOY,
) -> None:
    """Go the whole way with a toy model in a drawn world: what is shown says nothing of real video.

    Args:
        output: Folder for all that is made; an earlier demo in it is made anew. With a video of yours it is as private
            as that.
        video: Your own video file, of which the first window is anonymized, too.
        signals: The folder with its mask, pose and caption; needed with ``video``.
        steps: Training steps of each variant; StructHuman is killed half way and resumed.
        pretrained: The model: toy, or a diffusers folder of its form, such as one that regen_train.toy.making made.

    Raises:
        ValueError: Only one of ``video`` and ``signals`` is given, or they lie in ``output``.
        FileNotFoundError: There is no such video, signals or model.
        FileExistsError: ``output`` holds files that no demo made.
        ChildProcessError: One of the commands failed.
    """
    folder = Path(output)
    check_brought(folder, video, signals)
    if pretrained != TOY and not (Path(pretrained) / "model_index.json").is_file():
        raise FileNotFoundError(f"--pretrained must be {TOY} or a diffusers folder; {pretrained!r} is none")
    claim(folder)
    brought = None if video is None or signals is None else (Path(video), Path(signals))
    go(DemoFolder(folder), DemoSettings(pretrained, steps), load_follower(), brought)


def go(folder: DemoFolder, settings: DemoSettings, follow: Follow, brought: tuple[Path, Path] | None = None) -> Report:
    """Do all steps and write the page.

    Args:
        folder: Where everything goes; empty.
        settings: How much of everything.
        follow: Finds people in videos.
        brought: The user's own video and the folder of its signals.
    """
    print("This is a TOY: a drawn world and a tiny model. It says nothing of real video.", flush=True)
    _hide_loading_bars()
    journal = Journal()
    machinery = Machinery(folder, settings, journal)
    own = None if brought is None else OwnClip(*brought, folder, machinery)
    if own is not None:
        print("Of your clip: the first window, by a toy that knows drawn people only. Figures need exact truth, which")
        print("your clip has not: they are of the drawn world. Nothing is trained on your clip.")
        print(PRIVATE, flush=True)
        journal.do("your clip: signals, gate, shard", own.prepare)
    _train(machinery, journal)
    if own is not None:
        journal.do("your clip: anonymize", own.anonymize)
    ending = _Ending(folder, settings, follow)
    journal.do("draw held-out clips", ending.draw)
    journal.do("anonymize a file", lambda: machinery.anonymize_file(ending.subjects.alone[0].held_out))
    journal.do("reload in diffusers", lambda: machinery.reload(ending.subjects.alone[0]))
    journal.do("paint", ending.paint)
    journal.do("measure", ending.measure)
    journal.do("pictures", ending.show)
    report = Report(settings, ending.measurement, ending.control, journal)
    gallery = Gallery(ending.clips, ending.words, None if own is None else own.shown())
    write_page(folder.path / PAGE_NAME, report, gallery)
    write_report(folder.path / REPORT_NAME, report)
    print(f"\n{figures_table(report.measurement)}\n\n{answers(report)}\n\n{steps_table(journal)}")
    print(f"\nThe page, with pictures: {folder.path / PAGE_NAME}")
    print(f"Videos side by side: {folder.path / VIDEOS_NAME}; pictures of them over time: {folder.path / STRIPS_NAME}")
    if own is not None:
        print(f"\n{own.ending()}\n")
    print("This was a TOY: the page says what it proves and what not.")
    return report


def _train(machinery: Machinery, journal: Journal) -> None:
    steps = machinery.settings.steps
    half = steps // 2
    journal.do("draw clips", machinery.draw)
    journal.do("prepare shards", machinery.prepare)
    with machinery.training("structall") as finished:
        journal.do(f"train StructHuman, killed at step {half}", partial(machinery.train_and_kill, "structhuman", half))
        journal.do(f"resume to step {steps}", partial(machinery.resume, "structhuman"))
        journal.do(f"StructAll, beside it, {steps} steps", finished)
    journal.do("export", machinery.export)


class _Ending:
    """From exported weights to figures and pictures, in this process."""

    def __init__(self, folder: DemoFolder, settings: DemoSettings, follow: Follow) -> None:
        self.folder, self.settings, self.follow = folder, settings, follow

    def draw(self) -> str:
        settings = self.settings
        self.subjects = draw_subjects(settings.num_measured, settings.num_pairs, seed=settings.seed)
        return f"{len(self.subjects.alone)} clips of one person and {len(self.subjects.pairs)} of two, all new people"

    def paint(self) -> str:
        painters = load_painters({variant: self.folder.exported(variant) for variant in VARIANTS}, self.settings)
        self.treated = treat(self.subjects, painters, self.settings)
        self.changed = recolour(self.subjects.alone[: self.settings.num_recoloured], seed=self.settings.seed)
        self.after = paint(
            [item.subject for item in self.changed],
            painters.trained[_SHOWN],
            _SHOWN,
            self.settings,
            label="other words",
        )
        return (
            f"{sum(map(len, self.treated.values()))} videos by {len(self.treated)} methods; "
            f"{len(self.changed)} clips again with one word of the caption changed"
        )

    def measure(self) -> str:
        self.measurement = measure(self.subjects, self.treated, self.follow)
        count = len(self.changed)
        before = self.treated[_SHOWN][:count]
        self.control = measure_control(self.changed, before, self.after, self.subjects.alone[:count])
        return f"n = {len(self.subjects.alone)} people"

    def show(self) -> str:
        path = self.folder.path
        alone, pairs, words = self.settings.num_shown
        self.clips = shown_clips(self.subjects, self.treated, alone, pairs)
        self.words = shown_words(self.changed, self.treated[_SHOWN], self.after, words)
        write_pictures(path, self.clips, TOY_FORM.fps)
        shown = [*self.clips, *self.words]
        size = sum(len(panel.sheet) for clip in shown for panel in (*clip.panels, *clip.others))
        return f"{len(shown)} clips, {size / 1e6:.1f} MB on the page; {path / STRIP_NAME}"


def check_brought(folder: Path, video: str | None, signals: str | None) -> None:
    """Refuse half of what is needed of a user's own clip, and files in the folder that is made anew."""
    if (video is None) != (signals is None):
        raise ValueError("--video and --signals come together: a video file, and the folder of its signals")
    for given in (Path(path) for path in (video, signals) if path is not None):
        if not given.exists():
            raise FileNotFoundError(f"{given} does not exist")
        if folder.resolve() in given.resolve().parents:
            raise ValueError(f"{given} lies in --output {folder}, which the demo makes anew; name another output")


def claim(folder: Path) -> None:
    """Make the demo's folder anew; a folder that no demo made is never emptied."""
    marker = folder / ".regen_train_demo"
    if folder.exists() and any(folder.iterdir()) and not marker.is_file():
        raise FileExistsError(
            f"{folder} holds files that no demo made; name another folder, such as --output demo_output"
        )
    for page in _PAGES:  # first: what a failed run leaves must not show an earlier clip
        (folder / page).unlink(missing_ok=True)
    for made in _MADE:
        shutil.rmtree(folder / made, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("made by regen_train demo, and emptied by the next one\n")


def _hide_loading_bars() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
