"""The machinery, step by step, by the project's own commands; each works on what the one before it left on disk."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from regen_train.checkpoint_io import read_checkpoint
from regen_train.demo.journal import Journal
from regen_train.demo.reload import LORA_FILE, reload_in_diffusers
from regen_train.demo.settings import TOY_SAMPLING, VARIANTS, DemoFolder, DemoSettings
from regen_train.demo.subjects import Subject
from regen_train.export import ExportedFile, Format, export_checkpoint
from regen_train.preparation import DatasetSettings
from regen_train.shards import load_dataset
from regen_train.toy import write_world
from regen_train.toy.form import EXACT_SIGNALS, TOY_DATASET, TOY_FORM, TOY_PEOPLE, prepare_arguments
from regen_train.toy.heldout import HeldOutClip
from regen_train.toy.world import write_clip

_FORMATS: tuple[Format, ...] = ("diffusers", "wan")


class Machinery:
    """From drawn clips to weights that diffusers loads.

    Args:
        folder: Where everything lies.
        settings: How much of everything.
        journal: Runs and shows commands.
    """

    def __init__(self, folder: DemoFolder, settings: DemoSettings, journal: Journal) -> None:
        self.folder, self.settings, self.journal = folder, settings, journal
        # Two runs with half of the cores each are done before one after the other on all: small sums spread badly.
        self.threads = max(1, torch.get_num_threads() // 2)

    def draw(self) -> str:
        """Write the clips of the toy world."""
        clips = write_world(
            self.folder.clips, count=self.settings.num_clips, seed=self.settings.seed, form=TOY_FORM, options=TOY_PEOPLE
        )
        people = len({name for clip in clips for name in clip.identities})
        return f"{len(clips)} clips of {people} people in {self.folder.clips}, with exact masks, skeletons and depth"

    def prepare(self) -> str:
        """Make shards by data_prep, as a user does; but drawn clips have no secrets: their keys are those of the seed.

        So the same samples are held out and drawn in the same order in every run.
        """
        salt = self.folder.path / "salt"
        salt.write_bytes(hashlib.sha256(f"drawn clips, seed {self.settings.seed}".encode()).digest())
        self.journal.call(
            "data_prep.run",
            *self.preparation_arguments(self.folder.clips, self.folder.dataset, salt, TOY_DATASET),
            *EXACT_SIGNALS,
        )
        info = load_dataset(str(self.folder.dataset)).info
        return f"{info.num_samples} samples of {', '.join(info.buckets)}; {' and '.join(info.conditions)}"

    def train_and_kill(self, variant: str, step: int) -> str:
        """Run fit, and kill it without a warning once the checkpoint of a step is there."""
        checkpoint = self.folder.run(variant) / f"step-{step:06d}.ckpt"
        killed = self.journal.call_and_kill(
            checkpoint.is_file,
            "regen_train",
            *(*self._training(variant), "--checkpoint.every_n_steps", step),
            threads=self.threads,
        )
        end = "killed without a warning" if killed else "it had ended before it could be killed"
        return f"{checkpoint} is there; {end}"

    def resume(self, variant: str) -> str:
        """Run fit to its end, continuing what is there."""
        self.journal.call("regen_train", *self._training(variant), "--ckpt_path", "last", threads=self.threads)
        return self._trained(variant)

    @contextmanager
    def training(self, variant: str) -> Iterator[Callable[[], str]]:
        """Run fit beside other steps; give what waits for its end and says what came of it."""
        log = self.folder.run(variant).with_suffix(".log")
        with self.journal.beside(log, "regen_train", *self._training(variant), threads=self.threads) as finish:

            def finished() -> str:
                finish()
                return self._trained(variant)

            yield finished

    def _trained(self, variant: str) -> str:
        last = self.folder.run(variant) / "last.ckpt"
        content = read_checkpoint(last)
        position = content["ShardDataModule"]["position"]
        return f"step {content['global_step']}, {position} samples seen; {last}"

    def _training(self, variant: str) -> list[object]:
        return [
            *("fit", "--config", "quickstart.yaml"),
            *("--model.pretrained", self.settings.pretrained, "--data.path", self.folder.dataset),
            *("--data.variant", variant, "--data.seed", self.settings.seed),
            *("--trainer.default_root_dir", self.folder.run(variant), "--trainer.max_steps", self.settings.steps),
        ]

    def export(self) -> str:
        """Write the LoRA for other tools; the exporter reloads and compares each file."""
        files: list[ExportedFile] = []
        for variant in VARIANTS:
            checkpoint, output = self.folder.run(variant) / "last.ckpt", self.folder.exported(variant)
            self.journal.typed(
                *("regen_train", "export", "--checkpoint", checkpoint, "--output", output),
                *("--pretrained", self.settings.pretrained, "--formats", *_FORMATS),
            )
            report = export_checkpoint(checkpoint, output, _FORMATS, pretrained=self.settings.pretrained)
            files += report.files
        worst = max(file.difference for file in files)
        return f"{len(files)} LoRA files, reloaded: at most {worst:.0e} from the trained model"

    def anonymize_file(self, clip: HeldOutClip) -> str:
        """Write a held-out clip as a file and have it anonymized, as a user does."""
        self.folder.held_out.mkdir(exist_ok=True)
        files = write_clip(self.folder.held_out, "held-out", clip.original, codec="h264")
        output = self.folder.held_out / "anonymized.mp4"
        self.anonymize(
            files.video, files.signals, output, VARIANTS[0], "--caption", clip.described.caption, *EXACT_SIGNALS
        )
        return f"{output}, by the caption of other people"

    def reload(self, subject: Subject) -> str:
        """Sample with diffusers' own pipeline and the exported LoRA, and with ours; compare."""
        found = reload_in_diffusers(
            self.settings.pretrained,
            self.folder.exported(VARIANTS[0]),
            subject.composed.conditions[VARIANTS[0]],
            [subject.held_out.described.caption, "static"],
        )
        return (
            f"WanVACEPipeline with {LORA_FILE} samples the same latents within {found.difference:.0e}; "
            f"without the LoRA they differ by {found.effect:.1f}"
        )

    def anonymize(self, video: Path, signals: Path, output: Path, variant: str, *more: object) -> None:
        """Have a video file anonymized, as a user does."""
        sampling = TOY_SAMPLING
        self.journal.call(
            *("regen_train", "anonymize", "--input", video, "--output", output, "--signals", signals),
            *("--variant", variant, "--pretrained", self.settings.pretrained, "--lora", self.folder.exported(variant)),
            *("--negative_prompt", "", "--seed", self.settings.seed),
            *("--sampling.num_inference_steps", sampling.num_inference_steps),
            *("--sampling.guidance_scale", f"{sampling.guidance_scale:g}"),
            *("--sampling.flow_shift", f"{sampling.effective_shift:g}", "--sampling.cache.part", sampling.cache.part),
            *more,
        )

    def preparation_arguments(self, clips: Path, output: Path, salt: Path, settings: DatasetSettings) -> list[object]:
        """Return what data_prep.run is told, so that samples are made as the settings say."""
        return [
            *("--clips", clips, "--output", output, "--pretrained", self.settings.pretrained),
            *("--salt_file", salt, "--dtype", "fp32", "--num_workers", "0", "--cpu_workers", "1"),
            *prepare_arguments(settings),
        ]
