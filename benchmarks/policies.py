"""What each checkpointing policy keeps, peaks at and takes, as ratios to keeping everything.

One LoRA step (forward, backward) of the same model on the same random clip under every policy; its gradients are
compared too. Bytes are those of all living tensors on a CPU, and the allocator's on a GPU, the weights left out.

Run: ``python benchmarks/policies.py`` (a minute on 2 CPU cores), and on a GPU, at the paper's shape:
``python benchmarks/policies.py --pretrained random:wan2.1-vace-1.3b --num_frames 49 --height 480 --width 832
--reference``.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.model.checkpointing import POLICIES, Policy, set_checkpointing
from regen_train.model.live_memory import LiveMemory
from regen_train.model.memory import estimate_hidden_states
from regen_train.schema import Bucket


@dataclass(frozen=True)
class Cost:
    """What a step costs under one policy.

    Args:
        kept: Bytes between forward and backward, the inputs left out.
        peak: Most bytes at any time of the step.
        seconds: Median of the timed steps.
        gradients: Of what learns, on the CPU.
    """

    kept: int
    peak: int
    seconds: float
    gradients: dict[str, Tensor]


def inputs(model: WanVace, bucket: Bucket, *, batch: int, reference: bool, device: str) -> dict[str, Tensor]:
    """Draw a clip of noise."""
    generator = torch.Generator().manual_seed(0)
    channels, frames, height, width = model.geometry.latent_shape(bucket)
    space = (frames + reference, height, width)
    drawn = {
        "noised_latents": torch.randn(batch, channels, *space, generator=generator),
        "sigma": torch.rand(batch, generator=generator),
        "prompt_embeds": torch.randn(batch, 512, model.geometry.text_dim, generator=generator),
        "vace_context": torch.randn(batch, model.geometry.context_channels, *space, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in drawn.items()}


def step(model: WanVace, given: dict[str, Tensor]) -> tuple[int, int]:
    """Compute gradients; return the bytes kept between forward and backward, and the peak."""
    model.zero_grad()
    if given["sigma"].device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = model(**given).square().mean()
        kept = torch.cuda.memory_allocated() - before
        loss.backward()
        torch.cuda.synchronize()
        return kept, torch.cuda.max_memory_allocated() - before
    with LiveMemory() as memory:
        loss = model(**given).square().mean()
        kept = memory.now
        loss.backward()
    return kept, memory.peak


def timed(model: WanVace, given: dict[str, Tensor]) -> float:
    """Return the seconds of a step."""
    model.zero_grad()
    start = time.perf_counter()
    model(**given).square().mean().backward()
    if given["sigma"].device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(model: WanVace, given: dict[str, Tensor], policy: Policy, steps: int) -> Cost:
    """Measure one policy: bytes in a first step, which also warms up, then the time."""
    set_checkpointing(model.transformer, policy)
    kept, peak = step(model, given)
    gradients = {name: parameter.grad.cpu() for name, parameter in model.trained_parameters().items()}
    return Cost(kept, peak, statistics.median(timed(model, given) for _ in range(steps)), gradients)


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative difference of a gradient's norm."""
    return max(float((found[name] - of).norm() / of.norm().clamp_min(1e-30)) for name, of in expected.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="random:tiny")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--num_frames", type=int, default=21)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--reference", action="store_true", help="one more latent frame, as with a reference image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lora = LoraSpec(rank=options.rank)
    model = load_wan_vace(options.pretrained, dtype=options.dtype, lora=lora, attention=options.attention)
    model = model.train().to(device)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.01)  # else half of the factors have no gradient to compare
    bucket = Bucket(options.num_frames, options.height, options.width)
    given = inputs(model, bucket, batch=options.batch, reference=options.reference, device=device)
    tokens = model.geometry.num_tokens(bucket, reference=options.reference)
    hidden_state = options.batch * tokens * model.hidden_size * model.dtype.itemsize
    print(f"{options.pretrained}, {options.dtype}, {options.batch} x {tokens:,} tokens, {device}")
    print("| policy | kept MiB | ratio | peak MiB | ratio | estimated peak MiB | s | ratio | gradients |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: Cost | None = None
    for policy in POLICIES:
        try:
            cost = measure(model, given, policy, options.steps)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"| {policy} | does not fit |")
            continue
        first = first or cost
        estimate = estimate_hidden_states(model, policy) * hidden_state
        print(
            f"| {policy} | {cost.kept / 2**20:,.1f} | {cost.kept / first.kept:.2f} | {cost.peak / 2**20:,.1f} "
            f"| {cost.peak / first.peak:.2f} | {estimate / 2**20:,.1f} | {cost.seconds:.3f} "
            f"| {cost.seconds / first.seconds:.2f} | {difference(cost.gradients, first.gradients):.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
