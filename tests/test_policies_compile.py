"""Compiled blocks: the plain path's gradients under every policy, few graphs, untouched names; and a resume."""

import os
import statistics
from pathlib import Path

import jaxtyping
import pytest
import torch
from test_policies import gradients, inputs, tiny
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from regen_train.callbacks.meter import Measures
from regen_train.model import BlockOptions, LoraSpec, WanVace, compiling
from regen_train.model.compiling import Compilation
from regen_train.model.random_init import RANDOM_CONFIGS
from regen_train.profiling import Breakdown
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket
from regen_train.training_cli import TrainingCLI

# PyTorch's own, while it looks at what it is to compile
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
# relative, of each gradient's norm, in fp32
TOLERANCE = 1e-4
DROPOUT = {"lora": LoraSpec(rank=4, dropout=0.5)}


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without graphs; capture them as in training, but leave their kernels to PyTorch."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setenv(compiling.CACHE_VARIABLE, str(tmp_path / "kernels"))
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    # checks of shapes at run time, which only tests have, cannot be compiled
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def shorten(monkeypatch: pytest.MonkeyPatch, *, layers: int) -> None:
    """Leave the tiny model one VACE block and so many main blocks, of which the first needs no gradient."""
    monkeypatch.setitem(RANDOM_CONFIGS, "tiny", RANDOM_CONFIGS["tiny"] | {"num_layers": layers, "vace_layers": [0]})


def number_of_graphs() -> int:
    return compiling.compilation().graphs


def gradients_of(model: WanVace, *, seed: int = 0) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)  # of the dropout
    # whole prompts: what the plain path need not pad, it draws no dropout for
    words = torch.randn(2, MAX_PROMPT_TOKENS, 32, generator=torch.Generator().manual_seed(1))
    model(**inputs(model, seed=seed) | {"prompt_embeds": words}).square().mean().backward()
    return {name: gradient.clone() for name, gradient in gradients(model).items()}


def distances(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[float]:
    return [float((found[name] - of).norm() / of.norm()) for name, of in expected.items()]


def farthest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    return max(distances(found, expected))


def test_gradients_are_the_plain_ones_under_every_policy(monkeypatch):
    shorten(monkeypatch, layers=3)
    plain = tiny("none", **DROPOUT)
    expected = gradients_of(plain)
    for policy, graphs in (("none", 3), ("full", 0), ("offload", 0), ("selective", 2)):
        before = number_of_graphs()
        model = tiny(policy, blocks=BlockOptions(compile=True), **DROPOUT)
        assert farthest(gradients_of(model), expected) < TOLERANCE, policy
        assert farthest(gradients_of(model), expected) < TOLERANCE, f"{policy}, once more"
        # Each kind of block is compiled once, however many there are; full and offload run what none has compiled, and
        # so does selective before the first hint.
        assert number_of_graphs() - before == graphs, policy
        assert model.state_dict().keys() == plain.state_dict().keys()
        assert model.trainable_state().keys() == plain.trainable_state().keys()


def test_a_quantized_base_is_compiled_too(monkeypatch):
    shorten(monkeypatch, layers=2)
    expected = gradients_of(tiny("full", blocks=BlockOptions(quantize="int8")))
    found = gradients_of(tiny("full", blocks=BlockOptions(quantize="int8", compile=True)))
    assert farthest(found, expected) < TOLERANCE


def test_every_shape_is_compiled_once_and_no_prompt_makes_one(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    model = tiny("none", blocks=BlockOptions(compile=True))
    graphs = []
    for bucket in (Bucket(5, 32, 48), Bucket(5, 32, 32), Bucket(9, 32, 48), Bucket(5, 32, 48)):
        given = inputs(model, bucket=bucket)
        for words in (12, 40):
            model(**given | {"prompt_embeds": torch.randn(2, words, 32)}).square().mean().backward()
        graphs.append(number_of_graphs())
    assert graphs == [4, 8, 12, 12], "no graph for shapes in general, and PyTorch's limit of eight is lifted"


def test_ddp_cuts_no_block_up(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "optimize_ddp", True)
    monkeypatch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 1000)
    shorten(monkeypatch, layers=2)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    pieces = []

    def count(graph, given):
        pieces.append(graph)
        return graph

    monkeypatch.setattr(compiling, "BACKEND", count)
    model = tiny("none", blocks=BlockOptions(compile=True))
    DistributedDataParallel(model, bucket_cap_mb=0.001)(**inputs(model)).square().mean().backward()
    assert len(pieces) == number_of_graphs() == 3


def test_a_resumed_run_is_the_uninterrupted_one(quick_arguments, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")

    def fit(folder: str, steps: int, *more: str) -> dict[str, torch.Tensor]:
        run = ["--trainer.default_root_dir", str(tmp_path / folder), "--trainer.max_steps", str(steps)]
        done = TrainingCLI.run(["fit", *quick_arguments, "--model.blocks.compile", "true", *run, *more])
        return done.model.wan.trainable_state()

    expected = fit("whole", 3)
    fit("killed", 2)
    resumed = fit("killed", 3, "--ckpt_path", "last")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert number_of_graphs() > 0


def test_kernels_are_kept_in_the_users_own_folder(monkeypatch, tmp_path: Path, caplog):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def folder(*, compiled: bool = True) -> str | None:
        tiny("none", blocks=BlockOptions(compile=compiled))
        return os.environ.get(compiling.CACHE_VARIABLE)

    assert folder() == str(tmp_path / "kernels"), "the user has named one"
    monkeypatch.delenv(compiling.CACHE_VARIABLE)
    assert folder(compiled=False) is None
    assert folder() == str(tmp_path / "cache" / "regen_train" / "inductor")
    monkeypatch.delenv(compiling.CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder() == str(tmp_path / "home" / ".cache" / "regen_train" / "inductor")
    assert Path(folder()).is_dir()
    monkeypatch.delenv(compiling.CACHE_VARIABLE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    compiling.keep_kernels()
    assert compiling.CACHE_VARIABLE not in os.environ
    assert "kernels go to the temporary folder" in caplog.text


@pytest.mark.long
def test_fused_kernels_compute_the_plain_gradients(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    shorten(monkeypatch, layers=1)
    expected = gradients_of(tiny("none", **DROPOUT))
    for policy in ("none", "full", "selective"):
        assert (
            farthest(gradients_of(tiny(policy, blocks=BlockOptions(compile=True), **DROPOUT)), expected) < TOLERANCE
        ), policy


@pytest.mark.long
def test_in_bf16_fused_kernels_stay_as_near_to_fp32_as_plain_ones(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    shorten(monkeypatch, layers=2)
    plain, compiled = (tiny("none", dtype="bf16", blocks=BlockOptions(compile=way)) for way in (False, True))
    exact = tiny("none")
    with torch.no_grad():
        for mine, rounded in zip(exact.parameters(), plain.parameters(), strict=True):
            mine.copy_(rounded)
    expected = [gradients_of(exact, seed=seed) for seed in range(3)]
    plain_errors, errors = (
        [error for seed, of in enumerate(expected) for error in distances(gradients_of(model, seed=seed), of)]
        for model in (plain, compiled)
    )
    assert max(plain_errors) < 0.05, "else a bf16 gradient is hardly one, and any other is as near"
    for measure in (statistics.median, max):
        assert measure(errors) < 1.5 * measure(plain_errors), measure


def test_profiling_says_what_was_compiled_and_when():
    measures = Measures(
        seconds_per_step=1.0,
        samples_per_second=1.0,
        tokens_per_second=1.0,
        mfu=0.5,
        data_wait_seconds=0.0,
        data_wait_share=0.0,
        peak_memory_gib=1.0,
    )

    def told(during: Compilation) -> str:
        compiled = (Compilation(4, 60.0), during)
        return Breakdown({"forward": 1.0}, measures, matmul_rate=1e12, steps=3, compiled=compiled).describe()

    assert told(Compilation(0, 0.0)).endswith("compiled     4 graphs in 60.0 s before the measured steps")
    assert "steps, 7 in 9.5 s during them, which the times contain: take one bucket" in told(Compilation(7, 9.5))
