"""Make the toy model anew, by stages that are skipped where they are done: VAE, text, world, shards, base, observer.

    python -m regen_train.toy.making --output toy_model

An hour and a half on 2 quiet CPU cores. What comes out under OUTPUT/model is what the package ships in toy/model; logs
lie in OUTPUT/model/logs. Same seeds give the same clips and starting weights; the VAE's schedule follows the clock, so
weights agree in quality, not in bits.
"""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli

from regen_train.toy.form import PREPARE_OPTIONS, TOY_FORM, TOY_PEOPLE
from regen_train.toy.making.assemble import assemble_pipeline
from regen_train.toy.making.text import TextTraining, make_text_encoder
from regen_train.toy.making.vae import VaeTraining, train_vae
from regen_train.toy.world import write_world

log = logging.getLogger(__name__)
_WORLD_SEED = 505


def make(output: Path = Path("toy_model"), clips: int = 1400, vae_minutes: float = 27.0, steps: int = 2800) -> None:
    """Make the toy model.

    Args:
        output: Gets ``model``, which is whole at the end, and ``work``.
        clips: Drawn clips that the base is trained on.
        vae_minutes: Time for the VAE.
        steps: Optimizer steps of the base.
    """
    maker = _Maker(output, clips, vae_minutes, steps)
    for name, made, action in maker.stages():
        if made.exists():
            print(f"== {name}: {made} is there")
            continue
        print(f"== {name}", flush=True)
        action()
    print(f"the toy model lies in {maker.model}")


class _Maker:
    """The stages, each from files to files."""

    def __init__(self, output: Path, clips: int, vae_minutes: float, steps: int) -> None:
        self.work, self.model = output / "work", output / "model"
        self.start, self.logs = self.work / "model", self.model / "logs"
        self.clips, self.vae_minutes, self.steps = clips, vae_minutes, steps

    def stages(self) -> list[tuple[str, Path, Callable[[], None]]]:
        """Return name, what is there once a stage is done, and what it does."""
        work = self.work
        return [
            ("VAE", self.start / "vae" / "config.json", self.train_vae),
            ("text encoder", self.start / "text_encoder" / "config.json", self.train_text),
            ("pipeline", self.start / "model_index.json", lambda: assemble_pipeline(self.start, seed=0)),
            ("world", work / "clips", self.draw),
            ("shards", work / "dataset" / "dataset.json", self.prepare),
            (f"base, {self.steps} steps", work / "run" / f"step-{self.steps:06d}.ckpt", self.fit),
            ("export", work / "exported" / "merged", self.export),
            ("package", self.model / "model_index.json", self.package),
        ]

    def train_vae(self) -> None:
        """Train the VAE; on one thread, which for so small a network is no slower than two."""
        torch.set_num_threads(1)
        print(train_vae(self.start / "vae", self.logs / "vae.csv", VaeTraining(minutes=self.vae_minutes)))

    def train_text(self) -> None:
        """Train the text encoder."""
        share = make_text_encoder(self.start, self.logs / "text_encoder.csv", TextTraining())
        print(f"{share:.1%} of held-out words tell the next word")

    def draw(self) -> None:
        """Write the world's clips."""
        drawing = self.work / "clips.part"
        shutil.rmtree(drawing, ignore_errors=True)
        write_world(drawing, count=self.clips, seed=_WORLD_SEED, form=TOY_FORM, options=TOY_PEOPLE)
        drawing.rename(self.work / "clips")

    def prepare(self) -> None:
        """Encode depth, edges and skeletons by data_prep."""
        _call(
            *("data_prep.run", "--clips", self.work / "clips", "--output", self.work / "dataset"),
            *("--pretrained", self.start, *PREPARE_OPTIONS, "--conditions", "[depth,edges,pose]"),
            *("--num_workers", "2", "--threads", "1"),
        )

    def fit(self) -> None:
        """Train the base by ``regen_train fit``."""
        _call(
            *("regen_train", "fit", "--config", "toy_base.yaml", "--ckpt_path", "last"),
            *("--model.pretrained", self.start, "--data.path", self.work / "dataset"),
            *("--trainer.max_steps", self.steps, "--trainer.default_root_dir", self.work / "run"),
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
        transformer = WanVACETransformer3DModel.from_pretrained(self.work / "exported" / "merged" / "transformer")
        transformer.half().save_pretrained(self.model / "transformer")
        for part in ("transformer", "vae"):
            _forget_path(self.model / part / "config.json")


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
