"""The whole way on a CPU in minutes: clips, shards, training, resume, export, and the reload in diffusers."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.adapter import load_adapter
from regen_train.checkpoint_io import read_checkpoint
from regen_train.encoders import fold_mask, load_encoders, pack_context
from regen_train.export import export_checkpoint
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Bucket
from regen_train.shards import load_dataset
from regen_train.toy.drawn import draw_clips
from regen_train.toy.tiny import build_tiny_wan_vace

LORA_FILE = "pytorch_lora_weights.safetensors"
_PROMPTS = ["a person walks on the street", "static"]


@dataclass(frozen=True)
class DemoRow:
    """One line of the table at the end.

    Args:
        step: What was done.
        result: What came out.
        seconds: How long it took.
    """

    step: str
    result: str
    seconds: float


def run_demo(
    output: str = "demo_output", video: str | None = None, signals: str | None = None, steps: int = 30
) -> None:
    """Go the whole way with a tiny random Wan VACE: it proves the machinery and paints nothing.

    Args:
        output: Folder for all that is made; an earlier demo in it is made anew.
        video: Your own video file; by default a walker is drawn.
        signals: The folder with its mask, pose and caption; needed with ``video``.
        steps: Training steps; half of them before the run is stopped and resumed.

    Raises:
        ValueError: Only one of ``video`` and ``signals`` is given, or they lie in ``output``.
        FileNotFoundError: There is no such video or signals.
        FileExistsError: ``output`` holds files that no demo made.
    """
    if (video is None) != (signals is None):
        raise ValueError("--video and --signals come together: a video file, and the folder of its signals")
    folder = Path(output)
    for given in (Path(path) for path in (video, signals) if path is not None):
        if not given.exists():
            raise FileNotFoundError(f"{given} does not exist")
        if folder.resolve() in given.resolve().parents:
            raise ValueError(f"{given} lies in --output {folder}, which the demo makes anew; name another output")
    _claim(folder)
    demo = Demo(folder, steps)
    _hide_loading_bars()
    demo.do("tiny random Wan VACE", demo.build_model)
    demo.do("clips and signals", lambda: demo.bring_clips(video, signals))
    demo.do("shards", demo.prepare)
    demo.do(f"train {steps // 2} steps", lambda: demo.train(steps // 2))
    demo.do(f"resume to step {steps}", lambda: demo.train(steps))
    demo.do("export", demo.export)
    demo.do("reload in diffusers", demo.reload)
    print(demo.table())


class Demo:
    """The steps of the demo, each on what the one before it left on disk.

    Args:
        folder: Where everything goes.
        steps: Training steps.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps, self.rows = folder, steps, list[DemoRow]()
        self.model, self.clips, self.dataset = folder / "model", folder / "clips", folder / "dataset"
        self.run, self.exported = folder / "run", folder / "exported"
        self.held_out: tuple[object, ...] = ()

    def do(self, step: str, action: Callable[[], str]) -> None:
        """Do a step and note its result and time."""
        print(f"\n== {step}", flush=True)
        start = time.perf_counter()
        result = action()
        self.rows.append(DemoRow(step, result, time.perf_counter() - start))

    def build_model(self) -> str:
        """Write a tiny random pipeline."""
        build_tiny_wan_vace(self.model)
        megabytes = sum(file.stat().st_size for file in self.model.rglob("*") if file.is_file()) / 1e6
        return f"{self.model}, {megabytes:.1f} MB"

    def bring_clips(self, video: str | None, signals: str | None) -> str:
        """Draw clips, or put the user's own beside its signals; the user's files are only read."""
        if video is None or signals is None:
            return f"{len(draw_clips(self.clips, count=6))} drawn clips in {self.clips}"
        self.held_out = ("--data.validation.path", self.dataset)  # one clip: it is measured on what it trains on
        source = Path(video)
        (self.clips / "signals").mkdir(parents=True)
        shutil.copy(source, self.clips / source.name)
        shutil.copytree(signals, self.clips / "signals" / source.stem)
        return f"{source.name} with its signals"

    def prepare(self) -> str:
        """Run data_prep as a user does."""
        self._call(
            *("data_prep.run", "--clips", self.clips, "--output", self.dataset, "--pretrained", self.model),
            *("--salt_file", self.folder / "salt", "--dtype", "fp32", "--fps", "7.5", "--num_frames", "5"),
            *("--sizes", "[[96,160],[160,96]]", "--standin_depth", "vertical_gradient"),
            *("--allow_slow_source", "true", "--guard.when_absent", "accept", "--num_workers", "0"),
        )
        info = load_dataset(str(self.dataset)).info
        return f"{info.num_samples} samples of {', '.join(info.buckets)}; {', '.join(info.conditions)}"

    def train(self, steps: int) -> str:
        """Run fit as a user does, continuing what is there."""
        self._call(
            *("regen_train", "fit", "--config", "quickstart.yaml", "--ckpt_path", "last"),
            *("--model.pretrained", self.model, "--data.path", self.dataset, "--data.validation.num_samples", "1"),
            *self.held_out,
            *("--trainer.default_root_dir", self.run, "--trainer.max_steps", steps),
            *("--trainer.val_check_interval", 2 * (self.steps // 2), "--preview.every_n_validations", "1"),
        )
        content = read_checkpoint(self.run / "last.ckpt")
        position = content["ShardDataModule"]["position"]
        return f"step {content['global_step']}, {position} samples seen; previews in {self.run / 'previews'}"

    def export(self) -> str:
        """Write all formats; the exporter reloads and compares each."""
        report = export_checkpoint(self.run / "last.ckpt", self.exported, pretrained=str(self.model), dtype="fp32")
        worst = max(file.difference for file in report.files)
        return f"{len(report.files)} files in {self.exported}, at most {worst:.0e} from the trained model"

    def reload(self) -> str:
        """Sample with diffusers' own pipeline and the exported LoRA, and with ours; compare."""
        gray = torch.full((5, 32, 48, 3), 128, dtype=torch.uint8)
        noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
        theirs = _sample_with_diffusers(self.model, self.exported, gray, noise)
        ours = _sample(self.model, self.exported, gray, noise)
        base = _sample(self.model, None, gray, noise)
        difference, effect = (ours - theirs).abs().max(), (ours - base).abs().max()
        if not difference < 1e-4:
            raise RuntimeError(f"diffusers samples another video from the exported LoRA: {difference:.1e} apart")
        return f"WanVACEPipeline agrees within {difference:.0e}; without the LoRA it differs by {effect:.0e}"

    def table(self) -> str:
        """Return what was done."""
        wide = max(len(row.step) for row in self.rows)
        lines = [f"{row.step:<{wide}}  {row.seconds:6.1f} s  {row.result}" for row in self.rows]
        total = sum(row.seconds for row in self.rows)
        return "\n".join(["", *lines, f"{'together':<{wide}}  {total:6.1f} s"])

    @staticmethod
    def _call(module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        print("$ " + " ".join(["python", *command[1:]]), flush=True)
        subprocess.run(command, check=True)


def _claim(folder: Path) -> None:
    """Make the demo's folder anew; a folder that no demo made is never emptied."""
    marker = folder / ".regen_train_demo"
    if folder.exists() and any(folder.iterdir()) and not marker.is_file():
        raise FileExistsError(
            f"{folder} holds files that no demo made; name another folder, such as --output demo_output"
        )
    for made in ("clips", "dataset", "run", "exported"):
        shutil.rmtree(folder / made, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("made by regen_train demo, and emptied by the next one\n")


def _hide_loading_bars() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _sample(model: Path, lora: Path | None, frames: UInt8[Tensor, "t h w 3"], noise: Tensor) -> Tensor:
    encoders = load_encoders(str(model), dtype="fp32")
    condition = encoders.encode_condition(frames).reactive[None]
    mask = fold_mask(torch.ones(frames.shape[:3], dtype=torch.bool), encoders.geometry)[None]
    prompt, negative = encoders.encode_prompts(_PROMPTS)
    spec = None
    if lora is not None:
        spec = LoraSpec(rank=load_adapter(lora / LORA_FILE).rank, init=str(lora / LORA_FILE))
    return generate(
        load_wan_vace(str(model), dtype="fp32", lora=spec),
        vace_context=pack_context(condition, encoders.inactive_constant(Bucket(*frames.shape[:3]))[None], mask),
        prompt_embeds=prompt[None],
        negative_prompt_embeds=negative[None],
        noise=noise,
        settings=SamplingSettings(solver="unipc", num_inference_steps=4),
    )


def _sample_with_diffusers(model: Path, lora: Path, frames: UInt8[Tensor, "t h w 3"], noise: Tensor) -> Tensor:
    from diffusers import WanVACEPipeline
    from PIL import Image

    pipeline: Any = WanVACEPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(lora, weight_name=LORA_FILE)
    images = [Image.fromarray(frame) for frame in frames.numpy()]
    sampled = pipeline(
        video=images,
        mask=[Image.new("L", image.size, 255) for image in images],
        prompt=_PROMPTS[0],
        negative_prompt=_PROMPTS[1],
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=frames.shape[0],
        num_inference_steps=4,
        latents=noise,
        output_type="latent",
    )
    latents: Tensor = sampled.frames
    return latents
