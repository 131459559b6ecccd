"""Train the toy's VAE: an `AutoencoderKLWan` small enough for a package, on drawn clips and on conditions."""

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.toy.making.clips import TrainingClips, draw_training_clips
from regen_train.training.muon import Muon

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "decoder_base_dim": 24,
    "z_dim": 48,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
"""Factors of 8 in space and 4 in time, as Wan's; residual blocks and folded pixels as in Wan 2.2's."""

_KINDS = ("frames", "frames", "frames", "frames", "frames", "structhuman", "structall", "frames", "frames", "frames",
          "frames", "frames", "structhuman", "depth", "pose", "edges")  # fmt: skip


@dataclass(frozen=True)
class VaeTraining:
    """How the VAE is trained.

    Args:
        minutes: When to stop; the schedule follows the clock, since machines differ.
        num_clips: Clips to draw.
        batch_size: Clips a step.
        lr: Of the convolutions, by Muon.
        scalar_lr: Of biases and norms, by AdamW.
        human_weight: Weight of a pixel with people in it.
        kl_weight: Pull of the latents towards a standard normal, per latent value against the error per pixel value.
        seed: Of weights, clips and draws.
    """

    minutes: float = 27.0
    num_clips: int = 4800
    batch_size: int = 4
    lr: float = 0.02
    scalar_lr: float = 2e-3
    human_weight: float = 3.0
    kl_weight: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Reconstruction:
    """How well the VAE gives back clips it never saw, in dB.

    Args:
        psnr: Over all pixels.
        people: Over pixels with people.
    """

    psnr: float
    people: float


def train_vae(folder: Path, log: Path, settings: VaeTraining) -> Reconstruction:
    """Train encoder and decoder together, and save them with the latents' statistics, as fp16.

    Args:
        folder: Gets config.json and the weights.
        log: CSV file of the loss and the held-out PSNR.
        settings: How.
    """
    clips = draw_training_clips(settings.num_clips, seed=101 + settings.seed, kinds=_KINDS)
    vae = build_vae(settings.seed)
    _train(_Trainer(vae, clips, settings), log)
    vae.half().float()  # what is saved is what is measured
    _measure_statistics(vae, clips)
    vae.half().save_pretrained(folder)
    return reconstruction(vae.float(), _held_out(settings.seed))


def _train(trainer: "_Trainer", log: Path) -> None:
    held_out = _held_out(trainer.settings.seed)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "minutes", "loss", "held_out_psnr", "held_out_people_psnr"])
        while trainer.progress < 1:
            loss = trainer.step()
            if trainer.steps % 100 == 0:
                found = reconstruction(trainer.vae, held_out)
                row = [trainer.steps, round(trainer.minutes, 2), round(loss, 4), round(found.psnr, 2)]
                writer.writerow([*row, round(found.people, 2)])
                file.flush()


def _held_out(seed: int) -> TrainingClips:
    return draw_training_clips(32, seed=202 + seed, kinds=("frames",))


def build_vae(seed: int) -> Any:
    """Return the untrained VAE; every residual branch starts at zero."""
    from diffusers import AutoencoderKLWan

    blank = {"latents_mean": [0.0] * VAE_CONFIG["z_dim"], "latents_std": [1.0] * VAE_CONFIG["z_dim"]}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vae = AutoencoderKLWan(**VAE_CONFIG, **blank)
    for name, weight in vae.named_parameters():
        if name.endswith("conv2.weight"):
            torch.nn.init.zeros_(weight)
    return vae


@torch.no_grad()
def reconstruction(vae: Any, clips: TrainingClips) -> Reconstruction:
    """Measure what comes back of clips, by the mode of the posterior and 8-bit pictures."""
    squares, people, total, human = 0.0, 0.0, 0, 0
    for frames, mask in zip(clips.frames, clips.human, strict=True):
        pixels = _to_pixels(frames[None])
        error = (vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1) - pixels) ** 2
        inside = error * mask[None, None]
        squares, people = squares + float(error.sum()), people + float(inside.sum())
        total, human = total + error.numel(), human + 3 * int(mask.sum())
    return Reconstruction(10 * math.log10(4 * total / squares), 10 * math.log10(4 * human / people))


class _Trainer:
    """The VAE, its optimizer and the clock."""

    def __init__(self, vae: Any, clips: TrainingClips, settings: VaeTraining) -> None:
        self.vae, self.clips, self.settings = vae, clips, settings
        self.others = [weight for weight in vae.parameters() if not _is_matrix(weight)]
        matrices = [weight for weight in vae.parameters() if _is_matrix(weight)]
        self.optimizer = Muon(matrices, self.others, lr=settings.lr, other_lr=settings.scalar_lr)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.generator = generator_for(settings.seed, 0, "toy VAE")
        self.start, self.steps = time.monotonic(), 0

    @property
    def minutes(self) -> float:
        """Time gone by."""
        return (time.monotonic() - self.start) / 60

    @property
    def progress(self) -> float:
        """Share of the time gone by."""
        return self.minutes / self.settings.minutes

    def step(self) -> float:
        """Do one step; return its loss."""
        # Constant, and linear to zero over the last 60 %.
        factor = min(1.0, (self.steps + 1) / 50) * max(1e-3, min(1.0, (1 - self.progress) / 0.6))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        pixels, human = self._batch()
        with torch.autocast("cpu", torch.bfloat16):
            posterior = self.vae.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=self.generator)
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        loss = self._loss(decoded.float(), pixels, human, posterior)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return loss.item()

    def _batch(self) -> tuple[Float[Tensor, "b 3 t h w"], Bool[Tensor, "b 1 t h w"]]:
        chosen = torch.randint(len(self.clips.frames), (self.settings.batch_size,), generator=self.generator)
        return _to_pixels(self.clips.frames[chosen]), self.clips.human[chosen][:, None]

    def _loss(
        self, decoded: Float[Tensor, "b 3 t h w"], pixels: Float[Tensor, "b 3 t h w"], human: Tensor, posterior: Any
    ) -> Float[Tensor, ""]:
        error = decoded - pixels
        weight = 1 + (self.settings.human_weight - 1) * human.float()
        fidelity = (weight * (error.abs() + error**2)).mean()
        divergence: Tensor = posterior.kl().float().mean() / posterior.mean[0].numel()
        return fidelity + self.settings.kl_weight * divergence


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim > 2 and weight[0].numel() > 1  # else a bias or a norm's scale


@torch.no_grad()
def _measure_statistics(vae: Any, clips: TrainingClips) -> None:
    """Store mean and spread of every latent channel, over pictures only: these are what the transformer paints."""
    pictures = [frames for frames, kind in zip(clips.frames, clips.kinds, strict=True) if kind == "frames"][:256]
    latents = torch.cat([vae.encode(_to_pixels(frames[None])).latent_dist.mode() for frames in pictures])
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
    vae.register_to_config(latents_mean=_rounded(mean), latents_std=_rounded(std))


def _rounded(values: Float[Tensor, " c"]) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _to_pixels(frames: UInt8[Tensor, "b t h w 3"]) -> Float[Tensor, "b 3 t h w"]:
    return rearrange(frames, "b t h w c -> b c t h w").float() / 127.5 - 1
