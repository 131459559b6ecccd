"""One LoRA step three ways, in turns: encoding online, a bare diffusers loop, and ours.

    python benchmarks/train_step.py --pretrained random:wan2.1-vace-1.3b --bucket 49x480x832 --dtype bf16 --compile
    python benchmarks/train_step.py                                     # the toy, on a CPU, in a minute or two

- ``online``: VAE and text encoder at every step (clip, VACE's two videos, reference, prompt), every block computed
  again in the backward pass, what it keeps meanwhile in CPU memory. So DiffSynth-Studio trains, and the paper with it:
  its ``gradient_checkpoint_forward`` is ``save_on_cpu`` around ``checkpoint``.
- ``bare``: diffusers' WanVACETransformer3DModel with peft's LoRA on latents that were encoded before, and
  ``enable_gradient_checkpointing()``.
- ``ours``: `WanVace` and `sample_losses` on the same latents, ``--checkpointing`` as in a configuration.

All share one set of frozen weights, start from the same factors, see the same clip, noise and noise level, and end with
the same fused AdamW. Before anything is timed, losses and gradients are compared; it exits with 1 where they differ.
MFU counts model FLOPs, encoders left out, against the rate of a matrix product measured here. Memory is each way's
weights and the most that a step adds. ``--draws 8`` says, beside, how far bf16's gradients are from those of fp32 with
the same, bf16-rounded base weights. The online way pays for encoding at every step, the others once a clip, which is
printed beside. With random weights times mean what they mean with real ones. ``--hold``, for the toy on a CPU, exits
with 1 where online's 3.6 times ours have fallen by a third, or bare's 1.75 by half of the gain.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from train_step_clip import draw_clip, encode_clip, redraw
from train_step_ways import Way, compare, diffusers_ways, error_table, our_way, seconds_of, share_weights
from wan_encoders import load_online_encoders

from regen_train.model import BlockOptions, LoraSpec, WanVace, Workload, free_bytes, load_wan_vace
from regen_train.model.base import load_transformer
from regen_train.model.lora import add_lora
from regen_train.model.outline import outline_wan_vace
from regen_train.pretrained import DTYPES
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket
from regen_train.toy.tiny import build_tiny_wan_vace
from regen_train.training.flops import training_flops
from regen_train.training.matmul_rate import matmul_rate

_COMPILED = "ours, compiled"
_HELD = {"online": 2.4, "bare": 1.37}  # of 3.6 and 1.75: 2026-11-28-train-step-cpu-2-cores.md
_REMARKS = {
    "cuda": "asked for: online 3, bare 1.5",
    "cpu": (
        "On a CPU this says that the ways compute the same, and what encoding and computing again cost with this small "
        "model. It says nothing of a GPU: no copies to another memory here, little attention in so few tokens, another "
        "proportion of VAE and transformer."
    ),
}


def load_ours(options: argparse.Namespace, tokens: int, blocks: BlockOptions) -> WanVace:
    """Load our model."""
    device = torch.device(options.device)
    work = Workload(tokens=tokens, batch=1, free_bytes=free_bytes(device), device_type=device.type)
    model = load_wan_vace(
        options.pretrained,
        dtype=options.dtype,
        lora=LoraSpec(rank=options.rank),
        checkpointing=options.checkpointing,
        workload=work,
        attention=options.attention,
        blocks=blocks,
    )
    return model.train().to(device)


def load_all(options: argparse.Namespace, tokens: int) -> tuple[dict[str, WanVace], Any, list[WanVace]]:
    """Load ours by name, diffusers' transformer, and ours in fp32 where it is asked for, all with the same weights."""
    models = {"ours": load_ours(options, tokens, BlockOptions())}
    if options.compile:
        models[_COMPILED] = load_ours(options, tokens, BlockOptions(compile=True))
    transformer = load_transformer(options.pretrained, dtype=DTYPES[options.dtype], revision=None, seed=0).module
    add_lora(transformer, LoraSpec(rank=options.rank), seed=0)
    transformer.to(options.device)
    in_fp32 = argparse.Namespace(**vars(options) | {"dtype": "fp32", "attention": "auto"})
    exact = [load_ours(in_fp32, tokens, BlockOptions())] if options.draws else []
    for other in (transformer, *(model.transformer for model in (*models.values(), *exact))):
        share_weights(models["ours"].transformer, other)
    return models, transformer, exact


def time_in_turns(
    ways: list[Way], encode: Callable[[], object], options: argparse.Namespace
) -> tuple[dict[str, list[float]], list[float]]:
    """Return the seconds of each way's steps, and of encoding."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    encoding = []
    for _ in range(options.rounds):
        for way in ways:
            times[way.name].append(seconds_of(way.step, options.device))
        encoding.append(seconds_of(encode, options.device))
    return times, encoding


def main() -> None:
    """Compare, then time in turns, then print the table."""
    options = _options()
    name, device = options.pretrained, options.device
    with tempfile.TemporaryDirectory() as folder:
        if name == "random:tiny":
            options.pretrained = str(build_tiny_wan_vace(Path(folder) / "tiny"))
        geometry = outline_wan_vace(options.pretrained, dtype=options.dtype, lora=None).geometry
        tokens = geometry.num_tokens(options.bucket, reference=True)
        models, transformer, exact = load_all(options, tokens)
        encoders = load_online_encoders(options.pretrained, dtype=options.dtype, device=device)
    raw = draw_clip(options.bucket, encoders, device)
    encode = partial(encode_clip, raw, encoders, options.bucket, geometry)
    clip = encode()
    ways = diffusers_ways(transformer, encode, clip, options, encoders.num_bytes)
    ways += [our_way(way, model, clip) for way, model in models.items()]
    apart = compare(ways, options.dtype)

    def at_other_noise(seed: int) -> list[Way]:
        other = redraw(clip, seed)
        bare = diffusers_ways(transformer, encode, other, options, encoders.num_bytes)[1]
        return [bare, *(our_way(way, model, other) for way, model in models.items()), our_way("fp32", exact[0], other)]

    print(
        f"{name}, {options.bucket} and reference, {tokens:,} tokens, {options.dtype}, rank {options.rank}, "
        f"checkpointing of ours {models['ours'].checkpointing}\n{_device_name(device)}, torch {torch.__version__}\n",
        flush=True,
    )
    if options.draws:
        print(f"gradients' relative error against fp32's, {options.draws} draws of noise and noise level\n")
        print(error_table(map(at_other_noise, range(options.draws))) + "\n", flush=True)
    exact.clear()
    counted = [way for way in ways if device == "cuda" or way.name != _COMPILED]  # a CPU counts none in compiled code
    peaks = {way.name: way.peak(device) if way in counted else 0 for way in ways}
    times, encoding = time_in_turns(ways, encode, options)
    rate = product_rate(device, DTYPES[options.dtype])
    words = {name: model.prompt_tokens for name, model in models.items()}  # where padding is counted, not computed
    least = {
        way.name: training_flops(models["ours"], tokens, prompt_tokens=words.get(way.name, MAX_PROMPT_TOKENS)) / rate
        for way in ways
    }
    print(table(ways, times, peaks, apart, least))
    print(
        f"\nencoding alone, which bare and ours do once a clip: {statistics.median(encoding):.3f} s; "
        f"matrix products: {rate / 1e12:.3g} TFLOP/s"
    )
    print(_REMARKS[device])
    ratios = {name: times_ours(times, name) for name in _HELD}
    if options.hold and any(ratios[name] < held for name, held in _HELD.items()):
        raise SystemExit(f"times ours must be at least {_HELD}, got {ratios}")


def times_ours(times: dict[str, list[float]], way: str) -> float:
    """Return how many times as long as ours a way took, the median over rounds."""
    return statistics.median(one / our for one, our in zip(times[way], times["ours"], strict=True))


def table(
    ways: list[Way],
    times: dict[str, list[float]],
    peaks: dict[str, int],
    apart: dict[str, tuple[float, float]],
    least: dict[str, float],
) -> str:
    """Return the table as markdown; ``least`` has a step's seconds at an MFU of 1."""
    lines = [
        "| way | s/step, median (range) | times ours | MFU | weights GiB | a step adds GiB | loss | gradients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        seconds = times[way.name]
        ratio, middle = times_ours(times, way.name), statistics.median(seconds)
        loss, difference = apart[way.name]
        spread = f"{middle:.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
        added = f"{peaks[way.name] / 2**30:.3f}" if peaks[way.name] else ""
        lines.append(
            f"| {way.name} | {spread} | {ratio:.2f} | {least[way.name] / middle:.1%} | {way.num_bytes / 2**30:.3f} "
            f"| {added} | {loss:.5f} | {difference:.1e} |"
        )
    return "\n".join(lines)


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large matrix product, by the clock that times the steps."""
    if device == "cuda":
        return matmul_rate(torch.device(device), dtype)
    left, right = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
    return 2 * 1024**3 / min(seconds_of(partial(torch.mm, left, right), device) for _ in range(20))


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="toy", help="toy, random:tiny, random:wan2.1-vace-1.3b or a folder")
    parser.add_argument("--bucket", type=Bucket.parse, default=Bucket(9, 80, 80))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["bf16", "fp32"])
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--draws", type=int, default=0, help="compare gradients with fp32's at so many draws of noise")
    parser.add_argument("--checkpointing", default="auto", help="of ours")
    parser.add_argument("--attention", default="auto", help="of ours")
    parser.add_argument("--compile", action="store_true", help="one more row: ours with model.blocks.compile")
    parser.add_argument("--hold", action="store_true", help="exit with 1 where ours has fallen back")
    return parser.parse_args()


if __name__ == "__main__":
    main()
