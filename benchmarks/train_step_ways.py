"""The ways of `train_step.py`: what each computes, keeps and learns."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from train_step_clip import Clip, precision

from regen_train.flow import RECIPES, interpolate, velocity_target
from regen_train.model import WanVace
from regen_train.model.live_memory import LiveMemory
from regen_train.model.lora import lora_parameters
from regen_train.pretrained import DTYPES
from regen_train.training.objective import LossSpec, sample_losses

_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}


@dataclass
class Way:
    """One way of training.

    Args:
        name: Of the row.
        loss: Computes the loss, ready for its backward pass.
        factors: What learns, by name.
        optimizer: Moves it.
        num_bytes: Of all its weights.
    """

    name: str
    loss: Callable[[], Tensor]
    factors: dict[str, Any]
    optimizer: torch.optim.Optimizer
    num_bytes: int

    def gradients(self) -> tuple[float, dict[str, Tensor]]:
        """Return loss and gradients, and leave none behind."""
        loss = self.loss()
        loss.backward()
        found = {name: factor.grad.float().cpu() for name, factor in self.factors.items()}
        self.optimizer.zero_grad()
        return float(loss.detach()), found

    def step(self) -> None:
        """Train one step."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def peak(self, device: str) -> int:
        """Return the most bytes that a step adds to what there is."""
        if device == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            return torch.cuda.max_memory_allocated() - before
        with LiveMemory() as memory:
            self.step()
        return memory.peak


def diffusers_ways(
    transformer: Any, encode: Callable[[], Clip], clip: Clip, options: argparse.Namespace, encoder_bytes: int
) -> list[Way]:
    """Make the online and the bare way, around one transformer and one optimizer."""
    factors = lora_parameters(transformer)
    optimizer = torch.optim.AdamW(factors.values(), lr=1e-4, fused=True)
    transformer.train()

    def loss_of(given: Clip) -> Tensor:
        latents, context = given.with_reference()
        with precision(options.dtype, options.device):
            velocity = transformer(
                hidden_states=interpolate(latents, given.noise, given.sigma).to(DTYPES[options.dtype]),
                timestep=1000 * given.sigma,
                encoder_hidden_states=given.batch.prompt_embeds.to(DTYPES[options.dtype]),
                control_hidden_states=context.to(DTYPES[options.dtype]),
                return_dict=False,
            )[0]
        return (velocity.float() - velocity_target(latents, given.noise)).square().mean()

    def online() -> Tensor:
        transformer.enable_gradient_checkpointing(_run_again_offloaded)
        return loss_of(encode())

    def bare() -> Tensor:
        transformer.enable_gradient_checkpointing()
        return loss_of(clip)

    size = sum(p.nbytes for p in transformer.parameters())
    return [
        Way("online", online, factors, optimizer, size + encoder_bytes),
        Way("bare", bare, factors, optimizer, size),
    ]


def our_way(name: str, model: WanVace, clip: Clip) -> Way:
    """Make our way."""
    factors = model.trained_parameters()
    optimizer = torch.optim.AdamW(factors.values(), lr=1e-4, fused=True)

    def loss() -> Tensor:
        given = {"noise": clip.noise, "sigma": clip.sigma, "recipe": RECIPES["rectified_flow"], "spec": LossSpec()}
        return sample_losses(model, clip.batch, **given).loss.mean()

    return Way(name, loss, factors, optimizer, sum(p.nbytes for p in model.parameters()))


def compare(ways: list[Way], dtype: str) -> dict[str, tuple[float, float]]:
    """Return each way's loss and the largest relative difference of a gradient from the bare way's; exit if large."""
    found = {way.name: way.gradients() for way in ways}
    expected = found["bare"][1]
    apart = {name: (loss, max(differences(of, expected))) for name, (loss, of) in found.items()}
    losses = [loss for loss, _ in apart.values()]
    if max(part for _, part in apart.values()) > _TOLERANCE[dtype] or max(losses) - min(losses) > 0.02 * min(losses):
        raise SystemExit(f"the ways do not compute the same: loss and gradients' difference {apart}")
    return apart


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[float]:
    """Return the relative difference of each factor's gradient."""
    return [float((found[name] - to).norm() / to.norm().clamp_min(1e-30)) for name, to in expected.items()]


def error_table(draws: Iterable[list[Way]]) -> str:
    """Return as markdown how far gradients are from the exact ones.

    Args:
        draws: The same ways at other noise, the exact one last.
    """
    errors: dict[str, list[list[float]]] = {}
    for ways in draws:
        *found, (_, exact) = [way.gradients() for way in ways]
        for way, (_, gradients) in zip(ways, found, strict=False):
            errors.setdefault(way.name, []).append(differences(gradients, exact))
    lines = ["| way | middle factor | worst factor, median of draws | of all draws |", "|---|---|---|---|"]
    for name, of_draws in errors.items():
        worst = [max(of_factors) for of_factors in of_draws]
        middle = statistics.median(statistics.median(of_factors) for of_factors in of_draws)
        lines.append(f"| {name} | {middle:.2%} | {statistics.median(worst):.2%} | {max(worst):.2%} |")
    return "\n".join(lines)


@torch.no_grad()
def share_weights(source: Any, other: Any) -> None:
    """Give a transformer another's frozen weights, not a copy where the precision is the same; move B off zero.

    B is random: were all its numbers alike, all rows of A would have one gradient, which nearly cancels in some layers.
    """
    theirs, generator = dict(source.named_parameters()), torch.Generator().manual_seed(0)
    for name, parameter in other.named_parameters():
        if ".lora_B." in name:
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
        elif not parameter.requires_grad and parameter.dtype == theirs[name].dtype:
            parameter.data = theirs[name].data
        elif not parameter.requires_grad:
            parameter.copy_(theirs[name])


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Time work, the device's included; on one CPU thread the processor's time, which others' work changes less."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(device)
    since = clock()
    work()
    _wait(device)
    return clock() - since


def _run_again_offloaded(block: Any, *args: Any) -> Any:
    with torch.autograd.graph.save_on_cpu():
        return checkpoint(block.__call__, *args, use_reentrant=False)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
