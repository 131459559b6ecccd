"""Train the toy's VAE: an `AutoencoderKLWan` small enough for a package, on drawn clips and on conditions."""

import csv
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from regen_train.draws import generator_for
from regen_train.toy.making.clips import Kind, TrainingClips, draw_training_clips
from regen_train.training.muon import Muon

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "decoder_base_dim": 12,
    "z_dim": 48,
    "dim_mult": [1, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
"""Factors of 8 in space and 4 in time, as Wan's; residual blocks and folded pixels as in Wan 2.2's.

Of the layers that see 8x8x4 pixels at once, none is narrower than the latents, else they could not fill them.
"""

_FIVE: tuple[Kind, ...] = ("frames",) * 5
_KINDS: tuple[Kind, ...] = (*_FIVE, "structhuman", "structall", *_FIVE, "structhuman", "depth", "pose", "edges")


@dataclass(frozen=True)
class VaeTraining:
    """How the VAE is trained.

    Args:
        steps: Optimizer steps.
        num_clips: Clips to draw.
        batch_size: Clips a step, shared out among processes.
        lr: Of the convolutions, by Muon.
        scalar_lr: Of biases and norms, by AdamW.
        human_weight: Weight of a pixel with people in it.
        kl_weight: Pull of the latents towards a standard normal, per latent value against the error per pixel value.
        seed: Of weights, clips and draws.
        processes: Each on one thread: for so small a network better than threads.
    """

    steps: int = 3800
    num_clips: int = 4800
    batch_size: int = 4
    lr: float = 0.02
    scalar_lr: float = 2e-3
    human_weight: float = 3.0
    kl_weight: float = 1e-5
    seed: int = 0
    processes: int = 2


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
    from diffusers import AutoencoderKLWan

    clips = draw_training_clips(settings.num_clips, seed=101 + settings.seed, kinds=_KINDS)
    for tensor in (clips.frames, clips.human):
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as meeting:
        address = f"file://{meeting}/rendezvous"
        spawn(_train, (address, clips, settings, folder, log), nprocs=settings.processes)  # type: ignore[no-untyped-call]
    return reconstruction(AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32), _held_out(settings.seed))


def _train(rank: int, address: str, clips: TrainingClips, settings: VaeTraining, folder: Path, log: Path) -> None:
    """Be one of the processes; the first writes the log and the weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=settings.processes)
    trainer = _Trainer(build_vae(settings.seed), clips, settings, rank)
    if rank == 0:
        _train_with_log(trainer, log)
        trainer.vae.half().float()  # what is saved is what is measured
        _measure_statistics(trainer.vae, clips)
        trainer.vae.half().save_pretrained(folder)
    else:
        while trainer.steps < settings.steps:
            trainer.step()
    dist.destroy_process_group()


def _train_with_log(trainer: "_Trainer", log: Path) -> None:
    start, held_out = time.monotonic(), _held_out(trainer.settings.seed)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "minutes", "loss", "held_out_psnr", "held_out_people_psnr"])
        while trainer.steps < trainer.settings.steps:
            loss = trainer.step()
            if trainer.steps % 200 == 0 or trainer.steps == trainer.settings.steps:
                found, minutes = reconstruction(trainer.vae, held_out), (time.monotonic() - start) / 60
                row = [trainer.steps, f"{minutes:.2f}", f"{loss:.4f}", f"{found.psnr:.2f}", f"{found.people:.2f}"]
                writer.writerow(row)
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
    """The VAE and its optimizer, in one of the processes."""

    def __init__(self, vae: Any, clips: TrainingClips, settings: VaeTraining, rank: int) -> None:
        self.vae, self.clips, self.settings = vae, clips, settings
        self.others = [weight for weight in vae.parameters() if not _is_matrix(weight)]
        self.matrices = [weight for weight in vae.parameters() if _is_matrix(weight)]
        self.optimizer = Muon(self.matrices, self.others, lr=settings.lr, other_lr=settings.scalar_lr)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.generator = generator_for(settings.seed, rank, "toy VAE")
        self.steps = 0

    def step(self) -> float:
        """Do one step; return its loss, of this process."""
        # Constant, and linear to zero over the last 60 %.
        factor = min(1.0, (self.steps + 1) / 50, (1 - self.steps / self.settings.steps) / 0.6)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        pixels, human = self._batch()
        with torch.autocast("cpu", torch.bfloat16):
            posterior = self.vae.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=self.generator)
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        loss = self._loss(decoded.float(), pixels, human, posterior)
        loss.backward()  # type: ignore[no-untyped-call]
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return loss.item()

    def _average_gradients(self) -> None:
        gradients = [weight.grad for weight in self.matrices + self.others if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        means = torch.split(flat / self.settings.processes, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _batch(self) -> tuple[Float[Tensor, "b 3 t h w"], Bool[Tensor, "b 1 t h w"]]:
        count = self.settings.batch_size // self.settings.processes
        chosen = torch.randint(len(self.clips.frames), (count,), generator=self.generator)
        return _to_pixels(self.clips.frames[chosen]), self.clips.human[chosen][:, None]

    def _loss(
        self, decoded: Float[Tensor, "b 3 t h w"], pixels: Float[Tensor, "b 3 t h w"], human: Tensor, posterior: Any
    ) -> Float[Tensor, ""]:
        error = decoded - pixels
        weight = 1 + (self.settings.human_weight - 1) * human.float()
        fidelity = (weight * (error.abs() + error**2)).mean()
        divergence: Tensor = posterior.kl().float().sum() / posterior.mean.numel()
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
