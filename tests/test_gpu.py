"""What only a GPU can show: the same gradients by streams, kernels and rounded weights as by the plain path; a resume.

    make gpu

Every check compares two ways on one device. REGEN_TRAIN_TEST_DEVICE=cpu tries their code where there is no GPU.
"""

import os
from pathlib import Path

import pytest
import torch
from test_policies import gradients, inputs, tiny
from torch import Tensor

from regen_train.checkpoint_io import read_checkpoint
from regen_train.configs import resolve_arguments
from regen_train.model import BlockOptions, WanVace, load_wan_vace
from regen_train.model.block_options import QUANTIZED
from regen_train.model.checkpointing import POLICIES
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket
from regen_train.training_cli import TrainingCLI

DEVICE = torch.device(os.environ.get("REGEN_TRAIN_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BUCKET = Bucket(9, 64, 96)


@pytest.fixture(autouse=True)
def deterministic():
    """Have every kernel add in one order, and products of fp32 be of fp32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(before)


def on_device(policy: str, **options) -> WanVace:
    return tiny(policy, **options).to(DEVICE)


def given_to(model: WanVace) -> dict[str, Tensor]:
    words = torch.randn(2, MAX_PROMPT_TOKENS, 32, generator=torch.Generator().manual_seed(1))
    return {name: value.to(DEVICE) for name, value in (inputs(model, bucket=BUCKET) | {"prompt_embeds": words}).items()}


def gradients_of(model: WanVace) -> dict[str, Tensor]:
    for _ in range(2):  # what streams have not waited for shows in the second pass
        model.zero_grad()
        model(**given_to(model)).square().mean().backward()
    return {name: gradient.cpu() for name, gradient in gradients(model).items()}


def farthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    return max(float((found[name] - of).norm() / of.norm()) for name, of in expected.items())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_no_policy_changes_a_gradient(dtype):
    expected = gradients_of(on_device("none", dtype=dtype))
    assert all(gradient.any() for gradient in expected.values())
    for policy in POLICIES:
        found = gradients_of(on_device(policy, dtype=dtype))
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items()), policy


@pytest.mark.parametrize("swap", [3, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_swapped_blocks_change_no_gradient(policy, swap):
    expected = gradients_of(on_device(policy, dtype="bf16"))
    found = gradients_of(on_device(policy, dtype="bf16", blocks=BlockOptions(swap=swap)))
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_rounded_base_moves_gradients_as_far_as_it_is_rounded(kind):
    if kind == "nf4":
        pytest.importorskip("bitsandbytes")
    expected = gradients_of(on_device("full"))
    model = on_device("full", blocks=BlockOptions(quantize=kind))
    assert 0 < farthest(gradients_of(model), expected) < {"int8": 0.1, "fp8": 0.3, "nf4": 1.0}[kind]
    assert gradients_of(model).keys() == expected.keys()


@pytest.mark.parametrize("attention", ["native", "_native_flash", "_native_efficient", "_native_cudnn"])
def test_kernels_by_name_compute_the_gradients_of_the_plain_one(attention):
    if not ON_GPU and attention in ("_native_efficient", "_native_cudnn"):
        pytest.skip("a kernel of GPUs")
    expected = gradients_of(tiny("full", dtype="bf16", attention="_native_math").to(DEVICE))
    found = gradients_of(tiny("full", dtype="bf16", attention=attention).to(DEVICE))
    assert farthest(found, expected) < 0.05


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("policy", ["none", "selective", "full"])
def test_compiled_blocks_compute_the_plain_gradients(policy):
    torch._dynamo.reset()
    expected = gradients_of(on_device(policy))
    assert farthest(gradients_of(on_device(policy, blocks=BlockOptions(compile=True))), expected) < 1e-3


def test_offload_leaves_less_on_the_device_than_full():
    if not ON_GPU:
        pytest.skip("on a CPU there is nowhere to offload to")
    peaks = {}
    for policy in ("full", "offload"):
        model = on_device(policy)
        given = {name: value.repeat(8, *(1,) * (value.ndim - 1)) for name, value in given_to(model).items()}
        torch.cuda.reset_peak_memory_stats()
        loss = model(**given).square().mean()
        peaks[policy] = torch.cuda.memory_allocated()
        loss.backward()
    assert peaks["offload"] < 0.9 * peaks["full"]


def test_sampling_gives_the_cpus_video():
    latents = {}
    for device in ("cpu", DEVICE):
        model = load_wan_vace("random:tiny", dtype="fp32").to(device)
        given = {name: value.to(device) for name, value in inputs(model, bucket=BUCKET).items()}
        latents[str(device)] = generate(
            model,
            vace_context=given["vace_context"],
            prompt_embeds=given["prompt_embeds"],
            negative_prompt_embeds=0 * given["prompt_embeds"],
            noise=0,
            settings=SamplingSettings(num_inference_steps=4),
        ).cpu()
    torch.testing.assert_close(latents[str(DEVICE)], latents["cpu"], rtol=0, atol=1e-3)


STRATEGIES = {
    "one device": [],
    "offload": ["--model.checkpointing", "offload"],
    "swapped": ["--model.blocks.swap", "3"],
    "bf16": ["--model.dtype", "bf16"],
    "FSDP2": ["--config", "strategy_fsdp2.yaml"],
    "ZeRO 2": ["--config", "strategy_zero2.yaml"],
}


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_run_is_the_uninterrupted_one(name, quick_arguments, tmp_path: Path):
    if "ZeRO" in name:
        pytest.importorskip("deepspeed")
        if not ON_GPU:
            pytest.skip("Lightning's DeepSpeed is for GPUs")
    if not ON_GPU and name == "offload":
        pytest.skip("on a CPU there is nowhere to offload to")
    device = ["--trainer.accelerator", "gpu" if ON_GPU else "cpu", "--trainer.devices", "1"]

    def fit(folder: str, steps: int) -> dict[str, Tensor]:
        run = ["--trainer.default_root_dir", str(tmp_path / folder), "--trainer.max_steps", str(steps)]
        options = [*quick_arguments, *STRATEGIES[name], *device, "--trainer.deterministic", "true", *run]
        TrainingCLI.run(["fit", *resolve_arguments([*options, "--ckpt_path", "last"])])
        state: dict[str, Tensor] = read_checkpoint(tmp_path / folder / "last.ckpt")["state_dict"]
        return state

    expected = fit("whole", 4)
    fit("killed", 2)
    resumed = fit("killed", 4)
    assert all(torch.equal(value, resumed[key]) for key, value in expected.items())
    assert any(value.any() for key, value in expected.items() if "lora_B" in key)
