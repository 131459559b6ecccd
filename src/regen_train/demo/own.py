"""The user's own clip: its first window through the gate, and painted by the toy."""

import shutil
from dataclasses import replace
from pathlib import Path

from regen_train.anonymize.size import nearest_size
from regen_train.conditions import default_dilation
from regen_train.demo.methods import METHODS
from regen_train.demo.pictures import Panel, ShownClip
from regen_train.demo.settings import TOY_DATASET, VARIANTS, DemoFolder
from regen_train.demo.steps import Machinery
from regen_train.encoders import load_vae
from regen_train.preparation import DatasetSettings, compose_clip, survey_clip
from regen_train.shards import load_dataset
from regen_train.video import plan_crop, probe_video, read_video, resize_and_crop

CAPTION = (
    "A person with short black hair and tan skin in a red and white striped shirt, blue trousers and white shoes "
    "stands still. The room has a plain gray wall."
)
"""In words that the toy knows."""

WITHOUT_DETECTORS = ("--guard.when_absent", "accept")
"""The toy has no detectors of real people; so what only they would find is not found."""


class OwnClip:
    """A video file and its signals; both are only read.

    Nothing is trained on them: a model that has seen the person it is to hide would paint them.

    Args:
        video: The file.
        signals: The folder with mask, pose, caption and maybe depth.
        folder: The demo's output.
        machinery: Runs commands.
    """

    def __init__(self, video: Path, signals: Path, folder: DemoFolder, machinery: Machinery) -> None:
        self.video, self.signals, self.folder, self.machinery = video, signals, folder, machinery
        self.variants = VARIANTS if (signals / "depth.mkv").is_file() else VARIANTS[:1]
        self.geometry = load_vae(machinery.settings.pretrained).geometry
        self.settings = self._settings()

    def prepare(self) -> str:
        """Let data_prep read the clip, and the gate judge its first window."""
        clips = self.folder.own / "clips"
        (clips / "signals").mkdir(parents=True)
        shutil.copy(self.video, clips / self.video.name)
        shutil.copytree(self.signals, clips / "signals" / self.video.stem)
        dataset = self.folder.own / "dataset"
        self.machinery.journal.call(
            "data_prep.run",
            *self.machinery.preparation_arguments(clips, dataset, self.settings),
            *("--allow_slow_source", "true", "--max_windows_per_clip", "1"),
            *WITHOUT_DETECTORS,
        )
        info = load_dataset(str(dataset)).info
        return f"{info.num_samples} window of {', '.join(info.buckets)}; {' and '.join(info.conditions)}"

    def anonymize(self) -> str:
        """Paint the first window with each LoRA, as a user does."""
        for variant in self.variants:
            self.machinery.anonymize(
                self.video, self.signals, self._output(variant), variant,
                *("--caption", CAPTION, "--allow_slow_source", "true"), *WITHOUT_DETECTORS,
                *("--dilation", self.settings.dilation, "--line_width", f"{self.settings.line_width:.3f}"),
            )  # fmt: skip
        return f"{len(self.variants)} videos in {self.folder.own}"

    def shown(self) -> ShownClip:
        """Return original, conditions and what was painted, at the model's size."""
        plan = survey_clip(self.video, self.signals, self.settings, temporal_factor=self.geometry.temporal_factor)
        composed = next(compose_clip(plan, self.settings, self.variants))
        panels = [Panel("Your clip", "source", composed.frames)]
        for variant in self.variants:
            painted = read_video(self._output(variant)).frames
            label = METHODS[variant].label
            panels += [
                Panel(f"{label}: what the model is given", "given", composed.conditions[variant]),
                Panel(f"{label}: what it paints", "ours", resize_and_crop(painted, *self.settings.sizes[0])),
            ]
        return ShownClip(self.video.name, CAPTION, panels, ())

    def _output(self, variant: str) -> Path:
        return self.folder.own / f"{variant}.mp4"

    def _settings(self) -> DatasetSettings:
        """Return the toy's settings, brought to the size of the source."""
        info = probe_video(self.video)
        source = (info.height, info.width)
        area = TOY_DATASET.sizes[0][0] * TOY_DATASET.sizes[0][1]
        size = nearest_size(source, area, self.geometry)
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
