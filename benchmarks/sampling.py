"""What makes sampling faster, and what it costs: seconds, PSNR and mask IoU of each way of sampling the toy.

    python benchmarks/sampling.py [--pretrained toy] [--lora adapter.safetensors] [--num_clips 4] [--device cuda]

The first row evaluates the model as diffusers' WanVACEPipeline does, one prompt after the other at each of 50 steps;
ratios and PSNR (of the decoded frames, all pixels) are against it, from the same noise. Mask IoU, of where people are
found and where they should be, is each way's own: a way that loses nothing keeps the first row's. Only the loop of
sampling is timed, clip by clip; the ways alternate, and medians are shown. Prints markdown. Any Wan VACE of the toy's
form will do; with random weights the times mean something, the quality nothing. Minutes on 2 CPU cores.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from regen_train.anonymize.painter import load_model
from regen_train.demo.follow import load_follower
from regen_train.demo.settings import TOY_SAMPLING
from regen_train.demo.subjects import Subject, draw_subjects
from regen_train.encoders import WanEncoders, fold_mask, load_encoders, pack_context
from regen_train.evaluation.fidelity import psnr
from regen_train.model import WanVace
from regen_train.sampling import SamplingSettings, StepCache, generate
from regen_train.schema import Bucket

_FULL = replace(TOY_SAMPLING, num_inference_steps=50)
WAYS: dict[str, SamplingSettings] = {
    "50 steps, one prompt after the other": replace(_FULL, batched_guidance=False),
    "50 steps": _FULL,
    "25 steps": replace(_FULL, num_inference_steps=25),
    "12 steps": replace(_FULL, num_inference_steps=12),
    "8 steps": replace(_FULL, num_inference_steps=8),
    "12 steps, unipc": replace(_FULL, num_inference_steps=12, solver="unipc"),
    "50 steps, guidance in [0.3, 0.9]": replace(_FULL, guidance_interval=(0.3, 0.9)),
    "50 steps, guidance in [0.5, 1]": replace(_FULL, guidance_interval=(0.5, 1.0)),
    "50 steps, attention computed every other": replace(_FULL, cache=StepCache("attention", interval=2)),
    "50 steps, velocity computed every other": replace(_FULL, cache=StepCache("velocity", interval=2)),
    "50 steps, velocity computed every fourth": replace(_FULL, cache=StepCache("velocity", interval=4)),
    "25 steps, velocity computed every other": replace(
        _FULL, num_inference_steps=25, cache=StepCache("velocity", interval=2)
    ),
}


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
    subjects, follow = draw_subjects(options.num_clips, 0, seed=0).alone, load_follower()
    inputs = [_inputs(encoders, subject) for subject in subjects]
    encoders.text.release()
    outcomes = {name: Outcome() for name in WAYS}
    _sample(model, inputs[0], _FULL)  # to warm up
    for number, given in enumerate(inputs):
        videos: dict[str, Tensor] = {}
        for _ in range(options.repeats):
            for name, settings in WAYS.items():
                start = time.perf_counter()
                latents = _sample(model, given, settings)
                outcomes[name].seconds.append(time.perf_counter() - start)
                videos[name] = latents
        decoded = {name: encoders.decode_video(latents[0]) for name, latents in videos.items()}
        reference = next(iter(decoded.values()))
        everywhere = torch.ones(reference.shape[:3], dtype=torch.bool)
        for name, video in decoded.items():
            outcomes[name].psnr.append(psnr(video, reference, everywhere))
            outcomes[name].mask_iou.append(follow(video, subjects[number].held_out.original).mask_iou)
        print(f"clip {number + 1} of {len(inputs)}", flush=True)
    print(table(outcomes))


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


def _inputs(encoders: WanEncoders, subject: Subject) -> dict[str, Tensor]:
    condition = subject.composed.conditions["structhuman"]
    bucket = Bucket(*condition.shape[:3])
    latents = encoders.encode_condition(condition).reactive
    mask = fold_mask(torch.ones(condition.shape[:3], dtype=torch.bool), encoders.geometry)
    prompt, negative = encoders.encode_prompts([subject.held_out.described.caption, ""])
    return {
        "vace_context": pack_context(latents[None], encoders.inactive_constant(bucket)[None], mask[None]),
        "prompt_embeds": prompt[None],
        "negative_prompt_embeds": negative[None],
    }


def _sample(model: WanVace, given: dict[str, Tensor], settings: SamplingSettings) -> Tensor:
    latents = generate(model, **given, noise=0, settings=settings)
    if latents.device.type == "cuda":
        torch.cuda.synchronize(latents.device)
    return latents


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="toy")
    parser.add_argument("--lora", help="a LoRA to sample with")
    parser.add_argument("--num_clips", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each clip")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
