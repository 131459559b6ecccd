"""The user's own clip: its first window through the gate, and painted by the toy; its refusal stops nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from regen_train.anonymize import AnonymizeOptions, GateRefusedError, VideoOptions
from regen_train.anonymize.options import Variant
from regen_train.anonymize.size import nearest_size
from regen_train.anonymize.window import PassedWindow, take_window
from regen_train.conditions import default_dilation
from regen_train.demo.methods import METHODS
from regen_train.demo.pictures import Panel, ShownClip
from regen_train.demo.settings import DemoFolder
from regen_train.demo.steps import Machinery
from regen_train.encoders import load_vae
from regen_train.guard import GuardSettings
from regen_train.preparation import DatasetSettings
from regen_train.preparation.probe import Probed, ProbeSettings, ProbeStage
from regen_train.schema import Geometry
from regen_train.shards import load_dataset
from regen_train.toy.form import TOY_DATASET
from regen_train.video import plan_crop, read_video, resize_and_crop

CAPTION = (
    "A person with short black hair and tan skin in a red and white striped shirt, blue trousers and white shoes "
    "stands still. The room has a plain gray wall."
)
"""In words that the toy knows."""

WITHOUT_DETECTORS = ("--guard.when_absent", "accept")
"""The toy has no detectors of real people; so what only they would find is not found."""

PRIVATE = (
    "The page and its folder are as private as your clip: they hold its pictures, its name and what was made of it."
)

_MEND = "Mend the signals at these frames, or make them with another extractor: python -m data_prep.extract --help."
_REVIEW = (
    "Or look at it: python -m data_prep.run --clips FOLDER --output DATASET --review puts doubtful windows aside, with "
    "pictures and a list in which you release them; regen_train anonymize --quarantine FOLDER does so for one clip."
)
_NEEDED = (
    f"The demo needs {TOY_DATASET.num_frames} frames at {TOY_DATASET.fps:g} a second in one scene, and mask.mkv, "
    "pose.safetensors, caption.txt and signals.json made from this very file: bring a longer clip, or mend what is "
    "named.",
    "Options that are named belong to python -m data_prep.run and regen_train anonymize; the demo has none of them.",
)
_SAID = ("The terminal shows what the command said; run it again by itself, as it stands under “What was run”.",)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing of the user's own clip.

    Args:
        title: The file's name.
        reasons: What was found, in words.
        remedies: What to do.
    """

    title: str
    reasons: tuple[str, ...]
    remedies: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join([f"{self.title} was left out:", *self.reasons, "What to do:", *self.remedies])


class OwnClip:
    """A video file and its signals; both are only read.

    Nothing is trained on them: a model that has seen the person it is to hide would paint them. Once anything of the
    clip is refused, the steps that are left do nothing, and ``refusal`` says why.

    Args:
        video: The file.
        signals: The folder with mask, pose, caption and maybe depth.
        folder: The demo's output.
        machinery: Runs commands.
    """

    def __init__(self, video: Path, signals: Path, folder: DemoFolder, machinery: Machinery) -> None:
        self.video, self.signals, self.folder, self.machinery = video, signals, folder, machinery
        has_depth = (signals / "depth.mkv").is_file()
        self.variants: tuple[Variant, ...] = ("structhuman", "structall") if has_depth else ("structhuman",)
        self.refusal: Refusal | None = None
        self.windows: Mapping[str, PassedWindow] = {}

    def prepare(self) -> str:
        """Have the gate judge the first window, and data_prep make a shard of it."""
        return str(self._unless_refused(self._prepare))

    def anonymize(self) -> str:
        """Paint the first window with each LoRA, as a user does."""
        return str(self._unless_refused(self._anonymize))

    def shown(self) -> ShownClip | Refusal:
        """Return original, conditions and what was painted, at the model's size; or why there is nothing to show."""
        return self._unless_refused(self._shown)

    def ending(self) -> str:
        """Return what a user is told at the end."""
        return f"Your clip: {self.refusal or self.folder.own}\n{PRIVATE}"

    def _unless_refused(self, action: Callable[[], _T]) -> _T | Refusal:
        if self.refusal is None:
            try:
                return action()
            except (ValueError, OSError) as error:
                self.refusal = _refusal(self.video.name, error)
        return self.refusal

    def _prepare(self) -> str:
        probed = ProbeStage(ProbeSettings()).process(self.video).value
        assert isinstance(probed, Probed)
        geometry = load_vae(self.machinery.settings.pretrained).geometry
        self.settings = self._settings((probed.height, probed.width), geometry)
        # Judged as data_prep will, but here, where it is known why.
        self.windows = {
            variant: take_window(self._asked(variant), probed, self.settings, geometry, "cpu")
            for variant in self.variants
        }
        clips, dataset = self.folder.own / "clips", self.folder.own / "dataset"
        (clips / "signals").mkdir(parents=True)
        (clips / self.video.name).symlink_to(self.video.resolve())
        (clips / "signals" / self.video.stem).symlink_to(self.signals.resolve(), target_is_directory=True)
        self.machinery.journal.call(
            "data_prep.run",
            *self.machinery.preparation_arguments(clips, dataset, self.folder.own / "salt", self.settings),
            *("--allow_slow_source", "true", "--max_windows_per_clip", "1"),
            *WITHOUT_DETECTORS,
        )
        info = load_dataset(str(dataset)).info
        return f"{info.num_samples} window of {', '.join(info.buckets)}; {' and '.join(info.conditions)}"

    def _anonymize(self) -> str:
        for variant in self.variants:
            self.machinery.anonymize(
                self.video, self.signals, self._output(variant), variant,
                *("--caption", CAPTION, "--allow_slow_source", "true"), *WITHOUT_DETECTORS,
                *("--dilation", self.settings.dilation, "--line_width", f"{self.settings.line_width:.3f}"),
            )  # fmt: skip
        return f"{len(self.variants)} videos in {self.folder.own}"

    def _shown(self) -> ShownClip:
        panels = [Panel("Your clip", "source", self.windows["structhuman"].window.clip.frames)]
        for variant in self.variants:
            painted = read_video(self._output(variant)).frames
            label, given = METHODS[variant].label, self.windows[variant].window.clip.conditions[variant]
            panels += [
                Panel(f"{label}: what the model is given", "given", given),
                Panel(f"{label}: what it paints", "ours", resize_and_crop(painted, *self.settings.sizes[0])),
            ]
        return ShownClip(self.video.name, CAPTION, panels, ())

    def _output(self, variant: str) -> Path:
        return self.folder.own / f"{variant}.mp4"

    def _asked(self, variant: Variant) -> AnonymizeOptions:
        return AnonymizeOptions(
            VideoOptions(self.video, self._output(variant), variant, self.signals),
            guard=GuardSettings(when_absent="accept"),
        )

    def _settings(self, source: tuple[int, int], geometry: Geometry) -> DatasetSettings:
        """Return the toy's settings, brought to the height and width of the source."""
        area = TOY_DATASET.sizes[0][0] * TOY_DATASET.sizes[0][1]
        size = nearest_size(source, area, geometry)
        assert TOY_DATASET.line_width is not None
        return replace(
            TOY_DATASET,
            sizes=(size,),
            conditions=self.variants,
            dilation=default_dilation(*source),
            line_width=TOY_DATASET.line_width / plan_crop(*source, *size).scale,
            allow_slow_source=True,
            max_windows_per_clip=1,
        )


def _refusal(title: str, error: Exception) -> Refusal:
    if isinstance(error, GateRefusedError):
        doubted = error.report.verdict == "review"
        return Refusal(title, error.report.reasons, (_MEND, _REVIEW) if doubted else (_MEND,))
    if isinstance(error, ChildProcessError):
        return Refusal(title, ("one of the commands on it failed",), _SAID)
    return Refusal(title, (str(error),), _NEEDED)
