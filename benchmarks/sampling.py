"""What makes sampling faster, and what it costs: seconds, PSNR and mask IoU of each way of sampling the toy.

    python benchmarks/sampling.py [--pretrained toy] [--lora adapter.safetensors] [--num_clips 4] [--device cuda]
        [--compile] [--flow_shift 5 --guidance_scale 5]

The first row is diffusers' own WanVACEPipeline at 50 steps, with the LoRA merged; ratios and PSNR (of the decoded
frames, all pixels) are against it, from the same noise on the same schedule. ``--compile`` adds compiled blocks. Mask
IoU, of where people are found and where they should be, is each way's own: a way that loses nothing keeps the
first row's. Only the loop of sampling is timed, clip by clip; the ways alternate, and medians are shown. Prints
markdown. Any Wan VACE of the toy's form will do; with random weights the times mean something, the quality nothing.
Minutes on 2 CPU cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from wan_pipeline import TimedPipeline

from regen_train.anonymize.painter import load_model
from regen_train.demo.follow import load_follower
from regen_train.demo.settings import TOY_SAMPLING
from regen_train.demo.subjects import Subject, draw_subjects
from regen_train.encoders import WanEncoders, fold_mask, load_encoders, pack_context
from regen_train.evaluation.fidelity import psnr
from regen_train.model import BlockOptions, WanVace
from regen_train.sampling import FAST, SamplingSettings, StepCache, generate
from regen_train.schema import Bucket

_PIPELINE, _COMPILED = "WanVACEPipeline, 50 steps", ", compiled"
_FAST = "50 steps, velocity computed every third after 8, as anonymize does"


def ways_of(full: SamplingSettings) -> dict[str, SamplingSettings]:
    """Return what is compared with 50 whole steps, all at one shift and guidance."""
    n = "num_inference_steps"
    return {
        "50 steps, one prompt after the other": replace(full, batched_guidance=False),
        "50 steps": full,
        **{f"{steps} steps": replace(full, **{n: steps}) for steps in (25, 16, 12)},
        **{f"{steps} steps, unipc": replace(full, **{n: steps}, solver="unipc") for steps in (25, 16, 12)},
        "50 steps, guidance in [0.3, 1]": replace(full, guidance_interval=(0.3, 1.0)),
        "50 steps, attention computed every other": replace(full, cache=StepCache("attention", interval=2)),
        "50 steps, velocity computed every other": replace(full, cache=StepCache("velocity", interval=2)),
        _FAST: replace(full, cache=FAST.cache),
        "50 steps, velocity computed every fourth": replace(full, cache=StepCache("velocity", interval=4)),
        "25 steps, velocity computed every other": replace(full, **{n: 25}, cache=StepCache("velocity", interval=2)),
    }


@dataclass(frozen=True)
class Given:
    """What a clip is painted from: the condition, for diffusers as a video, for us encoded; and its prompts."""

    condition: Tensor
    context: Tensor
    prompts: dict[str, Tensor]


Way = Callable[[Given], tuple[Tensor, float]]


@dataclass
class Outcome:
    """Of one way: seconds of each clip of each round, PSNR and mask IoU of each clip."""

    seconds: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    mask_iou: list[float] = field(default_factory=list)


def main() -> None:
    """Sample every clip every way, and print the table."""
    options = _options()
    encoders = load_encoders(options.pretrained, dtype=options.dtype, device=options.device)
    model = load_model(options.pretrained, options.lora, dtype=options.dtype, device=options.device)
    pipeline = TimedPipeline(options.pretrained, model, dtype=options.dtype, device=options.device)
    full = replace(
        TOY_SAMPLING, num_inference_steps=50, flow_shift=options.flow_shift, guidance_scale=options.guidance_scale
    )
    ways: dict[str, Way] = {_PIPELINE: partial(pipeline_sample, pipeline, full)}
    settings_of = ways_of(full)
    ways |= {name: partial(sample, model, settings) for name, settings in settings_of.items()}
    if options.compile:
        blocks = BlockOptions(compile=True)
        compiled = load_model(
            options.pretrained, options.lora, dtype=options.dtype, device=options.device, blocks=blocks
        )
        for name in ("50 steps", _FAST):
            ways[name + _COMPILED] = partial(sample, compiled, settings_of[name])
    subjects, follow = draw_subjects(options.num_clips, 0, seed=0).alone, load_follower()
    inputs = [_inputs(encoders, subject) for subject in subjects]
    encoders.text.release()
    outcomes = {name: Outcome() for name in ways}
    for name, way in ways.items():
        if name.endswith(_COMPILED) or name == _PIPELINE:
            way(inputs[0])  # to warm up, and to compile
    for number, given in enumerate(inputs):
        videos: dict[str, Tensor] = {}
        for _ in range(options.repeats):
            for name, way in ways.items():
                videos[name], seconds = way(given)
                outcomes[name].seconds.append(seconds)
        decoded = {name: encoders.decode_video(latents[0]) for name, latents in videos.items()}
        reference = next(iter(decoded.values()))
        everywhere = torch.ones(reference.shape[:3], dtype=torch.bool)
        for name, video in decoded.items():
            outcomes[name].psnr.append(psnr(video, reference, everywhere))
            outcomes[name].mask_iou.append(follow(video, subjects[number].held_out.original).mask_iou)
        print(f"clip {number + 1} of {len(inputs)}", flush=True)
    print(table(outcomes))


def pipeline_sample(pipeline: TimedPipeline, settings: SamplingSettings, given: Given) -> tuple[Tensor, float]:
    """Sample as diffusers."""
    sampled = pipeline(given.condition, **given.prompts, settings=settings)
    return sampled.latents, sampled.seconds


def sample(model: WanVace, settings: SamplingSettings, given: Given) -> tuple[Tensor, float]:
    """Sample as we do; return the seconds as well."""
    since = time.perf_counter()
    latents = generate(model, vace_context=given.context, **given.prompts, noise=0, settings=settings)
    if latents.device.type == "cuda":
        torch.cuda.synchronize(latents.device)
    return latents, time.perf_counter() - since


def table(outcomes: dict[str, Outcome]) -> str:
    """Return all ways as markdown."""
    slowest = statistics.median(next(iter(outcomes.values())).seconds)
    lines = [
        "| | seconds a clip, median | times faster | PSNR dB, mean (lowest) | mask IoU, mean |",
        "|---|---|---|---|---|",
    ]
    for name, outcome in outcomes.items():
        seconds = statistics.median(outcome.seconds)
        quality = f"{statistics.fmean(outcome.psnr):.1f} ({min(outcome.psnr):.1f})"
        followed = f"{statistics.fmean(outcome.mask_iou):.3f}"
        lines.append(f"| {name} | {seconds:.3f} | {slowest / seconds:.2f} | {quality} | {followed} |")
    return "\n".join(lines)


def _inputs(encoders: WanEncoders, subject: Subject) -> Given:
    condition = subject.composed.conditions["structhuman"]
    bucket = Bucket(*condition.shape[:3])
    latents = encoders.encode_condition(condition).reactive
    mask = fold_mask(torch.ones(condition.shape[:3], dtype=torch.bool), encoders.geometry)
    prompt, negative = encoders.encode_prompts([subject.held_out.described.caption, ""])
    context = pack_context(latents[None], encoders.inactive_constant(bucket)[None], mask[None])
    return Given(condition, context, {"prompt_embeds": prompt[None], "negative_prompt_embeds": negative[None]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="toy")
    parser.add_argument("--lora", help="a LoRA to sample with")
    parser.add_argument("--num_clips", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each clip")
    parser.add_argument("--flow_shift", type=float, default=TOY_SAMPLING.flow_shift)
    parser.add_argument("--guidance_scale", type=float, default=TOY_SAMPLING.guidance_scale)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
