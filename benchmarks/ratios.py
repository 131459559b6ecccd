"""Is anything a third slower than it was? Four ratios, each of two ways in one run, on the CPU.

    python benchmarks/ratios.py

Times depend on the machine, ratios much less. A ratio is the slow way's time by the fast way's, the median over rounds
in which both alternate; `REFERENCES` holds what was measured. It exits with 1 where one fell by a third; one that grew
for good should be written down anew. Two minutes on 2 CPU cores.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning_step
import reader
import torch
from torch import Tensor

from regen_train.demo.settings import TOY_SAMPLING
from regen_train.encoders import pad_prompts
from regen_train.model import WanVace, load_wan_vace
from regen_train.sampling import generate
from regen_train.schema import Bucket
from regen_train.shards import ShardReader
from regen_train.toy.form import TOY_FORM

REFERENCES = {
    "reader, 2 threads, against webdataset": 8.0,
    "bare training loop against regen_train fit": 0.97,
    "a toy's training step with 512 words against counted padding": 1.6,
    "50 steps one prompt after the other against the toy's sampling": 3.3,
}
"""What was measured, at the lower end of several runs."""

_ALLOWED_FALL = 1 / 3


def main() -> None:
    """Measure all four and print them beside their references."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = (_reader(Path(folder) / "shards"), _fit(Path(folder)), _padding(), _sampling())
        measured = dict(zip(REFERENCES, ways, strict=True))
    fallen = []
    print("| ratio | measured | reference | least |\n|---|---|---|---|")
    for name, reference in REFERENCES.items():
        least = reference * (1 - _ALLOWED_FALL)
        print(f"| {name} | {measured[name]:.2f} | {reference:.2f} | {least:.2f} |")
        if measured[name] < least:
            fallen.append(name)
    if fallen:
        sys.exit(f"fallen by more than a third: {'; '.join(fallen)}")


def _reader(folder: Path) -> float:
    folder.mkdir()
    reader.write_dataset(folder, 16)
    shards, batches = ShardReader(str(folder)), [reader.allocate_batch(), reader.allocate_batch()]
    rates: dict[str, list[float]] = {"webdataset": [], "ours": []}
    for repeat in range(4):
        rates["webdataset"].append(reader.samples_per_second(reader.read_webdataset, folder, repeat, batches[0]))
        rates["ours"].append(reader.samples_per_second(reader.read_ours, shards, repeat, batches))
    return statistics.median(rates["ours"][1:]) / statistics.median(rates["webdataset"][1:])  # the first warms up


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


def _sampling() -> float:
    model = load_wan_vace("toy", dtype="fp32", lora=None)
    given = _inputs(model, batch=1)
    given = {"vace_context": given["vace_context"], "prompt_embeds": given["prompt_embeds"]}
    given["negative_prompt_embeds"] = given["prompt_embeds"][:, :1]
    full = replace(TOY_SAMPLING, num_inference_steps=50, batched_guidance=False)

    def sample(settings: object) -> Callable[[], object]:
        return lambda: generate(model, **given, noise=0, settings=settings)

    return _ratio(sample(full), sample(TOY_SAMPLING), rounds=3)


def _inputs(model: WanVace, *, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = model.geometry.latent_shape(Bucket(TOY_FORM.num_frames, TOY_FORM.height, TOY_FORM.width))

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
    since = time.perf_counter()
    way()
    return time.perf_counter() - since


if __name__ == "__main__":
    main()
