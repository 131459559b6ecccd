"""What each checkpointing policy keeps, peaks at and takes; then the same of compiled, quantized and swapped blocks.

One LoRA step (forward, backward) of the same model on the same random clip each way; its gradients are compared with
those of the first row. Each way's steps alternate with the first row's, and the ratio is the median over pairs: another
program's work falls on both. Bytes are those of all living tensors on a CPU, and the allocator's on a GPU, the weights
left out; inside compiled blocks a CPU counts none. Velocity and loss are what quantization moves on a fixed random
sample.

Run: ``python benchmarks/policies.py`` (minutes on 2 CPU cores, most of them for compiling), and on a GPU, at the
paper's shape: ``python benchmarks/policies.py --pretrained random:wan2.1-vace-1.3b --num_frames 49 --height 480
--width 832 --reference``. A second run compiles from the cache; ``--ways`` and ``--policies`` choose rows.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from regen_train.model import BlockOptions, LoraSpec, WanVace, load_wan_vace
from regen_train.model.checkpointing import POLICIES, Policy, set_checkpointing
from regen_train.model.compiling import compilation
from regen_train.model.live_memory import LiveMemory
from regen_train.model.memory import estimate_hidden_states
from regen_train.schema import Bucket


@dataclass(frozen=True)
class Cost:
    """What a step costs under one policy.

    Args:
        kept: Bytes between forward and backward, the inputs left out; 0 where nothing counts them.
        peak: Most bytes at any time of the step; 0 likewise.
        seconds: Median of the timed steps.
        ratio: To the first way's, median over pairs of steps.
        gradients: Of what learns, on the CPU.
    """

    kept: int
    peak: int
    seconds: float
    ratio: float
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
    if model.block_options.compile:  # compiles first, and not under a mode that looks at every operator
        model(**given).square().mean().backward()
        model.zero_grad()
    if given["sigma"].device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = model(**given).square().mean()
        kept = torch.cuda.memory_allocated() - before
        loss.backward()
        torch.cuda.synchronize()
        return kept, torch.cuda.max_memory_allocated() - before
    if model.block_options.compile:
        model(**given).square().mean().backward()
        return 0, 0
    with LiveMemory() as memory:
        loss = model(**given).square().mean()
        kept = memory.now
        loss.backward()
    return kept, memory.peak


def timed(model: WanVace, given: dict[str, Tensor]) -> float:
    """Return the seconds of a step; on one CPU thread the processor's, which others' work changes less."""
    on_gpu = given["sigma"].device.type == "cuda"
    clock = time.process_time if not on_gpu and torch.get_num_threads() == 1 else time.perf_counter
    model.zero_grad()
    start = clock()
    model(**given).square().mean().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def measure(model: WanVace, given: dict[str, Tensor], steps: int, *, first: Callable[[], float] | None) -> Cost:
    """Measure one way: bytes in a first step, which also warms up; then its time, in turns with the first way."""
    kept, peak = step(model, given)
    gradients = {name: parameter.grad.cpu() for name, parameter in model.trained_parameters().items()}
    seconds, ratios = [], []
    for _ in range(steps):
        before = first() if first is not None else None
        seconds.append(timed(model, given))
        ratios.append(1.0 if before is None else seconds[-1] / before)
    return Cost(kept, peak, statistics.median(seconds), statistics.median(ratios), gradients)


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative difference of a gradient's norm."""
    return max(float((found[name] - of).norm() / of.norm().clamp_min(1e-30)) for name, of in expected.items())


def load(options: argparse.Namespace, blocks: BlockOptions, *, checkpointing: str) -> WanVace:
    """Load the model with factors that all have a gradient."""
    model = load_wan_vace(
        options.pretrained,
        dtype=options.dtype,
        lora=LoraSpec(rank=options.rank),
        attention=options.attention,
        checkpointing=checkpointing,
        blocks=blocks,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # random: were all of B alike, all rows of A would have one gradient, which nearly cancels
        for parameter in model.trained_parameters().values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return model.train().to(options.device)


def policies(options: argparse.Namespace, model: WanVace, given: dict[str, Tensor]) -> None:
    """Print the table of checkpointing policies."""
    hidden_state = len(given["sigma"]) * options.tokens * model.hidden_size * model.dtype.itemsize
    print("| policy | kept MiB | ratio | peak MiB | ratio | estimated peak MiB | s | ratio | gradients |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: Cost | None = None

    def step_of_first(policy: Policy) -> float:
        set_checkpointing(model.transformer, options.policies[0])
        seconds = timed(model, given)
        set_checkpointing(model.transformer, policy)
        return seconds

    for policy in options.policies:
        set_checkpointing(model.transformer, policy)
        try:
            cost = measure(model, given, options.steps, first=partial(step_of_first, policy) if first else None)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"| {policy} | does not fit |")
            continue
        first = first or cost
        estimate = estimate_hidden_states(model, policy) * hidden_state
        print(
            f"| {policy} | {cost.kept / 2**20:,.1f} | {cost.kept / first.kept:.2f} | {cost.peak / 2**20:,.1f} "
            f"| {cost.peak / first.peak:.2f} | {estimate / 2**20:,.1f} | {cost.seconds:.3f} "
            f"| {cost.ratio:.2f} | {difference(cost.gradients, first.gradients):.1e} |",
            flush=True,
        )


WAYS = {
    "plain": BlockOptions(),
    "compile": BlockOptions(compile=True),
    "int8": BlockOptions(quantize="int8"),
    "fp8": BlockOptions(quantize="fp8"),
    "nf4": BlockOptions(quantize="nf4"),
    "int8+compile": BlockOptions(compile=True, quantize="int8"),
    "swap": BlockOptions(),  # half of the main blocks
}


def ways(options: argparse.Namespace, given: dict[str, Tensor]) -> None:
    """Print the table of compiled, quantized and swapped blocks."""
    print(f"\ncheckpointing {options.checkpointing}\n")
    print(
        "| blocks | weights MiB | kept MiB | peak MiB | s | ratio | graphs | compiled s | gradients | velocity, loss |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    first: Cost | None = None
    compared: WanVace | None = None  # stays in memory beside each other way
    for name in options.ways:
        blocks, before = WAYS[name], compilation()
        if name == "swap":
            blocks = BlockOptions(swap=options.num_main // 2)
        try:
            model = load(options, blocks, checkpointing=options.checkpointing)
            cost = measure(
                model, given, options.steps, first=partial(timed, compared, given) if compared is not None else None
            )
        except (ImportError, torch.OutOfMemoryError) as error:
            print(f"| {name} | {str(error).splitlines()[0]} |")
            continue
        first, compared = first or cost, compared or model
        weights = sum(parameter.nbytes for parameter in model.parameters())
        if model.swap is not None:
            weights += model.swap.resident_bytes - model.swap.host_bytes
        compiled, said = compilation() - before, model.quantization
        moved = "" if said is None else f"{said.velocity_error:.2%}, {said.loss_after / said.loss_before - 1:+.3%}"
        sizes = [f"{size / 2**20:,.1f}" if size else "" for size in (weights, cost.kept, cost.peak)]
        apart = difference(cost.gradients, first.gradients)
        print(
            f"| {name} | {' | '.join(sizes)} | {cost.seconds:.3f} | {cost.ratio:.2f} "
            f"| {compiled.graphs} | {compiled.seconds:.0f} | {apart:.1e} | {moved} |",
            flush=True,
        )
        del model


def main() -> None:
    """Print the tables."""
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
    parser.add_argument("--policies", nargs="*", default=POLICIES, choices=POLICIES)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--checkpointing", default="full", choices=POLICIES, help="of the second table")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(options, BlockOptions(), checkpointing="none")
    options.num_main = len(model.transformer.blocks)
    bucket = Bucket(options.num_frames, options.height, options.width)
    given = inputs(model, bucket, batch=options.batch, reference=options.reference, device=options.device)
    options.tokens = model.geometry.num_tokens(bucket, reference=options.reference)
    print(f"{options.pretrained}, {options.dtype}, {options.batch} x {options.tokens:,} tokens, {options.device}")
    if options.policies:
        policies(options, model, given)
    del model
    if options.ways:
        ways(options, given)


if __name__ == "__main__":
    main()
