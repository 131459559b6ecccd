"""Is anything a third slower than it was? Six ratios, each of two ways in one run, on the CPU.

    python benchmarks/ratios.py

Times depend on the machine, ratios much less. A ratio is the slow way's time by the fast way's, the median over rounds
in which both alternate; a time is the processor's, of one thread, which other programs change little. `REFERENCES`
holds what was measured. It exits with 1 where one fell by a third, or below what `LEAST` says; one that grew for good
should be written down anew. A minute and a half on 2 quiet CPU cores.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning_step
import reader
import torch
from torch import Tensor
from wan_pipeline import TimedPipeline

from regen_train.demo.settings import TOY_SAMPLING
from regen_train.encoders import fold_mask, load_encoders, pack_context, pad_prompts
from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.model.checkpointing import Policy, set_checkpointing
from regen_train.sampling import FAST, generate
from regen_train.schema import Bucket
from regen_train.shards import ShardReader
from regen_train.toy.form import TOY_FORM

REFERENCES = {
    "webdataset against our reader": 15.0,
    "bare training loop against regen_train fit": 0.97,
    "a toy's training step with 512 words against counted padding": 1.45,
    "WanVACEPipeline's loop against ours, the toy at equal steps": 1.45,
    "50 steps against the 22 that anonymize computes": 2.0,
    "recomputing whole blocks against keeping attention": 1.15,
}
"""What was measured, at the lower end of three runs: 2026-11-28-train-step-cpu-2-cores.md."""

LEAST = {
    "a toy's training step with 512 words against counted padding": 1.22,
    "WanVACEPipeline's loop against ours, the toy at equal steps": 1.22,
    "50 steps against the 22 that anonymize computes": 1.5,
    "recomputing whole blocks against keeping attention": 1.07,
}
"""Half of the gain, where a third less would still pass, or nearly, with the gain gone altogether."""

_ALLOWED_FALL = 1 / 3
_FIFTY = replace(TOY_SAMPLING, num_inference_steps=50)
_TOY_BUCKET = Bucket(TOY_FORM.num_frames, TOY_FORM.height, TOY_FORM.width)


def main() -> None:
    """Measure all and print them beside their references."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = (_reader(Path(folder) / "shards"), _fit(Path(folder)), _padding(), *_sampling(), _selective())
        measured = dict(zip(REFERENCES, ways, strict=True))
    fallen = []
    print("| ratio | measured | reference | least |\n|---|---|---|---|")
    for name, reference in REFERENCES.items():
        least = LEAST.get(name, reference * (1 - _ALLOWED_FALL))
        print(f"| {name} | {measured[name]:.2f} | {reference:.2f} | {least:.2f} |")
        if measured[name] < least:
            fallen.append(name)
    if fallen:
        sys.exit(f"fallen too far: {'; '.join(fallen)}")


def _reader(folder: Path) -> float:
    folder.mkdir()
    reader.write_dataset(folder, 16)
    shards, batch = ShardReader(str(folder)), reader.allocate_batch()
    given = {"webdataset": reader.read_webdataset, "ours": reader.read_ours}
    times: dict[str, list[float]] = {"webdataset": [], "ours": []}
    for repeat in range(5):
        for name, read in given.items():
            since = time.process_time()
            count = read(folder, repeat, batch) if name == "webdataset" else read(shards, repeat, [batch])
            times[name].append((time.process_time() - since) / count)
    return statistics.median(times["webdataset"][1:]) / statistics.median(times["ours"][1:])  # the first warms up


def _fit(folder: Path) -> float:
    dataset = folder / "dataset"
    lightning_step.write_dataset(dataset)
    bare, fit = [], []
    for number in range(2):
        bare += lightning_step.bare_steps(dataset, 8)
        fit += lightning_step.lightning_steps(dataset, folder / f"run-{number}", 8)
    return statistics.median(bare) / statistics.median(fit)


def _padding() -> float:
    model = load_wan_vace("toy", dtype="fp32", trainable="all")
    given = _inputs(model, batch=4)
    words = pad_prompts(given["prompt_embeds"].unbind())

    def padded() -> None:
        velocity = model.transformer(
            hidden_states=given["noised_latents"],
            timestep=1000 * given["sigma"],
            encoder_hidden_states=words,
            control_hidden_states=given["vace_context"],
            return_dict=False,
        )[0]
        velocity.square().mean().backward()

    return _ratio(padded, lambda: model(**given).square().mean().backward(), rounds=10)


def _sampling() -> tuple[float, float]:
    model, encoders = load_wan_vace("toy", dtype="fp32", lora=None), load_encoders("toy", dtype="fp32")
    pipeline = TimedPipeline("toy", None, dtype="fp32", device="cpu")
    size = (TOY_FORM.num_frames, TOY_FORM.height, TOY_FORM.width)
    condition = torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    prompt, negative = encoders.encode_prompts(["a person in a red shirt", ""])
    prompts = {"prompt_embeds": prompt[None], "negative_prompt_embeds": negative[None]}
    reactive, inactive = encoders.encode_condition(condition).reactive, encoders.inactive_constant(Bucket(*size))
    mask = fold_mask(torch.ones(size, dtype=torch.bool), encoders.geometry)
    context = pack_context(reactive[None], inactive[None], mask[None])
    ratios, predicted = [], []
    for _ in range(4):
        theirs = pipeline(condition, **prompts, settings=TOY_SAMPLING)
        since = time.process_time()
        ours = generate(model, vace_context=context, **prompts, settings=TOY_SAMPLING)
        ratios.append(theirs.processor_seconds / (time.process_time() - since))
        assert torch.allclose(ours, theirs.latents, atol=1e-3), "not the same clip"
        ways = (
            partial(generate, model, vace_context=context, **prompts, settings=replace(_FIFTY, cache=cache))
            for cache in (_FIFTY.cache, FAST.cache)
        )
        whole, fast = map(_seconds, ways)
        predicted.append(whole / fast)
    return statistics.median(ratios[1:]), statistics.median(predicted[1:])


def _selective() -> float:
    model = load_wan_vace("random:tiny", dtype="fp32", lora=LoraSpec(rank=4)).train()
    given = _inputs(model, batch=1, bucket=Bucket(21, 416, 416))

    def step(policy: Policy) -> Callable[[], None]:
        def work() -> None:
            set_checkpointing(model.transformer, policy)
            model(**given).square().mean().backward()

        return work

    return _ratio(step("full"), step("selective"), rounds=3)


def _inputs(model: WanVace, *, batch: int, bucket: Bucket = _TOY_BUCKET) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = model.geometry.latent_shape(bucket)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "noised_latents": draw(*shape),
        "sigma": torch.rand(batch, generator=generator),
        "prompt_embeds": draw(40, model.geometry.text_dim),
        "vace_context": draw(model.geometry.context_channels, *shape[1:]),
    }


def _ratio(slow: Callable[[], object], fast: Callable[[], object], *, rounds: int) -> float:
    slow(), fast()  # to warm up
    return statistics.median(_seconds(slow) / _seconds(fast) for _ in range(rounds))


def _seconds(way: Callable[[], object]) -> float:
    since = time.process_time()
    way()
    return time.process_time() - since


if __name__ == "__main__":
    main()
