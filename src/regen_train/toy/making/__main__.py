"""Make the toy model anew, by stages that are skipped where they are done: VAE, text, world, shards, base.

    python -m regen_train.toy.making --output toy_model

Two hours on 2 quiet CPU cores. What comes out under OUTPUT/model is what the package ships in toy/model; logs lie in
OUTPUT/model/logs. Same seeds give the same clips, starting weights and order of samples; other processors round sums
otherwise, so weights agree there in quality, not in bits. The observer is made by ``regen_train.toy.making.observer``.
"""

import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jsonargparse import auto_cli

from regen_train.toy.form import (
    EXACT_SIGNALS,
    TOY_DATASET,
    TOY_FORM,
    TOY_LINE_WIDTH,
    TOY_PEOPLE,
    prepare_arguments,
)
from regen_train.toy.making.assemble import assemble_pipeline
from regen_train.toy.making.card import write_card
from regen_train.toy.making.text import TextTraining, make_text_encoder
from regen_train.toy.making.vae import VaeTraining, train_vae
from regen_train.toy.world import write_world

log = logging.getLogger(__name__)
_WORLD_SEED = 505


@dataclass(frozen=True)
class Amounts:
    """How much of everything; the defaults made the toy that ships.

    Args:
        clips: Drawn clips that the base is trained on.
        steps: Optimizer steps of the base.
        vae_clips: Drawn clips that the VAE is trained on.
        vae_steps: Optimizer steps of the VAE.
        text_steps: Optimizer steps of the text encoder.
    """

    clips: int = 1800
    steps: int = 9000
    vae_clips: int = 4800
    vae_steps: int = 3800
    text_steps: int = 2500


def make(output: Path = Path("toy_model"), amounts: Amounts = Amounts()) -> None:
    """Make the toy model.

    Args:
        output: Gets ``model``, which is whole at the end, and ``work``.
        amounts: How much of everything.
    """
    maker = _Maker(output, amounts)
    for name, made, action in maker.stages():
        if made.exists():
            print(f"== {name}: {made} is there")
            continue
        print(f"== {name}", flush=True)
        action()
    print(f"the toy model lies in {maker.model}")


class _Maker:
    """The stages, each from files to files."""

    def __init__(self, output: Path, amounts: Amounts) -> None:
        self.work, self.model, self.amounts = output / "work", output / "model", amounts
        self.start, self.logs = self.work / "model", self.model / "logs"

    def stages(self) -> list[tuple[str, Path, Callable[[], None]]]:
        """Return name, what is there once a stage is done, and what it does."""
        work, steps = self.work, self.amounts.steps
        return [
            ("VAE", self.start / "vae" / "config.json", self.train_vae),
            ("text encoder", self.start / "text_encoder" / "config.json", self.train_text),
            ("pipeline", self.start / "model_index.json", lambda: assemble_pipeline(self.start, seed=0)),
            ("world", work / "clips", self.draw),
            ("shards", work / "dataset" / "dataset.json", self.prepare),
            (f"base, {steps} steps", work / "run" / f"step-{steps:06d}.ckpt", self.fit),
            ("export", work / "exported" / "merged", self.export),
            ("package", self.model / "model_index.json", self.package),
        ]

    def train_vae(self) -> None:
        """Train the VAE."""
        settings = VaeTraining(steps=self.amounts.vae_steps, num_clips=self.amounts.vae_clips)
        print(train_vae(self.start / "vae", self.logs / "vae.csv", settings))

    def train_text(self) -> None:
        """Train the text encoder."""
        share = make_text_encoder(self.start, self.logs / "text_encoder.csv", TextTraining(self.amounts.text_steps))
        print(f"{share:.1%} of held-out words tell the next word")

    def draw(self) -> None:
        """Write the world's clips."""
        drawing = self.work / "clips.part"
        shutil.rmtree(drawing, ignore_errors=True)
        write_world(drawing, count=self.amounts.clips, seed=_WORLD_SEED, form=TOY_FORM, options=TOY_PEOPLE)
        drawing.rename(self.work / "clips")

    def prepare(self) -> None:
        """Encode backgrounds, depth, edges and skeletons by data_prep."""
        settings = replace(TOY_DATASET, conditions=("background", "depth", "edges", "pose"))
        _call(
            *("data_prep.run", "--clips", self.work / "clips", "--output", self.work / "dataset"),
            *("--pretrained", self.start, *prepare_arguments(settings), *EXACT_SIGNALS),
            *("--num_workers", "2", "--threads", "1"),
        )

    def fit(self) -> None:
        """Train the base by ``regen_train fit``."""
        steps = self.amounts.steps
        _call(
            *("regen_train", "fit", "--config", "toy_base.yaml", "--ckpt_path", "last"),
            *("--model.pretrained", self.start, "--data.path", self.work / "dataset"),
            *("--trainer.max_steps", steps, "--trainer.default_root_dir", self.work / "run"),
            *("--trainer.val_check_interval", min(1000, steps), "--checkpoint.every_n_steps", min(1000, steps)),
        )

    def export(self) -> None:
        """Write the averaged weights as a diffusers folder."""
        _call(
            *("regen_train", "export", "--checkpoint", self.work / "run" / "last.ckpt", "--ema"),
            *("--output", self.work / "exported", "--formats", "merged", "--pretrained", self.start),
            *("--dtype", "fp32"),
        )

    def package(self) -> None:
        """Put the trained transformer, in fp16, beside the other parts."""
        from diffusers import WanVACETransformer3DModel

        shutil.copytree(self.start, self.model, dirs_exist_ok=True, ignore=shutil.ignore_patterns("transformer"))
        shutil.copy(self.work / "run" / "config.yaml", self.logs / "base.yaml")
        _write_losses(self.work / "run" / "logs", self.logs / "base.csv")
        transformer = WanVACETransformer3DModel.from_pretrained(self.work / "exported" / "merged" / "transformer")
        transformer.half().save_pretrained(self.model / "transformer")
        for part in ("transformer", "vae"):
            _forget_path(self.model / part / "config.json")
        bucket = f"{TOY_FORM.num_frames}x{TOY_FORM.height}x{TOY_FORM.width}"
        form = {"bucket": bucket, "settings": {"fps": TOY_FORM.fps, "line_width": TOY_LINE_WIDTH}}
        (self.model / "regen_train.json").write_text(json.dumps(form, indent=2) + "\n")  # what `anonymize` asks it for
        write_card(self.model, self.work / "dataset")


def _write_losses(events: Path, log: Path) -> None:
    """Write the losses that TensorBoard keeps as a CSV file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = EventAccumulator(str(events)).Reload()
    rows = [(event.step, kind, event.value) for kind in ("train", "val") for event in kept.Scalars(f"{kind}/loss")]
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train_loss", "held_out_loss"])
        for step, kind, value in sorted(rows):
            writer.writerow([step, *((f"{value:.4f}", "") if kind == "train" else ("", f"{value:.4f}"))])


def _forget_path(config: Path) -> None:
    """Take out of a config in which folder of this machine the model once lay."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")


def _call(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$ " + " ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    auto_cli(make, as_positional=False)
