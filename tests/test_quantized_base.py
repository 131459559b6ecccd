"""A base in fewer bytes: what is kept, how far it moves, what learns on top, and that exports know nothing of it."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import WanVACETransformer3DModel
from test_policies import gradients, loss_of, tiny
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from regen_train.adapter import load_adapter
from regen_train.checkpoint_io import read_checkpoint
from regen_train.export.checkpoint import export_checkpoint
from regen_train.model import BlockOptions, LoraSpec, WanVace, estimate_bytes, load_wan_vace
from regen_train.model.block_options import QUANTIZED
from regen_train.model.checkpointing import POLICIES
from regen_train.model.outline import outline_wan_vace
from regen_train.model.quantized_linear import QuantizedLinear, stored_bytes
from regen_train.model.quantizing import frozen_bytes, frozen_linears
from regen_train.training.flops import training_flops
from regen_train.training_cli import TrainingCLI

# relative error of a normally distributed weight, root mean square
ERRORS = {"int8": 0.01, "fp8": 0.03, "nf4": 0.11}


@pytest.fixture(params=QUANTIZED)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "nf4":
        pytest.importorskip("bitsandbytes")
    return request.param


def layer(kind: str, dtype: torch.dtype) -> tuple[nn.Linear, QuantizedLinear]:
    torch.manual_seed(0)
    linear = nn.Linear(128, 96, dtype=dtype).requires_grad_(False)
    return linear, QuantizedLinear(linear, kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_with_the_rounded_weight_and_keeps_only_that(kind: str, dtype: torch.dtype) -> None:
    linear, quantized = layer(kind, dtype)
    weight = quantized.dequantized()
    error = (weight - linear.weight.float()).norm() / linear.weight.float().norm()
    assert 0 < error < ERRORS[kind]
    x = torch.randn(2, 5, 128, dtype=dtype, requires_grad=True)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = quantized(x)
    expected = nn.functional.linear(x, weight.to(dtype), linear.bias)
    assert torch.equal(y, expected)
    gradient = torch.randn_like(y)
    (found,) = torch.autograd.grad(y, x, gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x, gradient)[0])
    assert sum(tensor.nbytes for tensor in kept) == stored_bytes(kind, (96, 128)), "the weight that was made is kept"


def test_an_empty_channel_stays_empty(kind: str) -> None:
    linear = nn.Linear(64, 2, bias=False).requires_grad_(False)
    linear.weight[0] = 0
    assert not QuantizedLinear(linear, kind).dequantized()[0].any()


def rounded(model: WanVace, quantized: WanVace) -> WanVace:
    """Give a plain model the weights that a quantized one computes with."""
    layers = frozen_linears(model.transformer)
    for name, layer in frozen_linears(quantized.transformer).items():
        assert isinstance(layer, QuantizedLinear)
        layers[name].weight.copy_(layer.dequantized())
    return model


@pytest.mark.parametrize("options", [{"lora": LoraSpec(rank=4)}, {"trainable": "vace"}], ids=["lora", "vace"])
def test_what_learns_is_exact_on_top_of_the_rounded_base(kind: str, options: dict) -> None:
    expected: dict[str, Tensor] = {}
    for policy in POLICIES:
        model = tiny(policy, blocks=BlockOptions(quantize=kind), **options)
        loss_of(model).backward()
        if not expected:
            plain = rounded(tiny("none", **options), model)
            loss_of(plain).backward()
            expected = gradients(plain)
        for name, gradient in gradients(model).items():
            assert gradient.dtype == torch.float32
            torch.testing.assert_close(gradient, expected[name], msg=f"{policy}: {name}")


def test_bytes_and_errors_are_measured_and_the_base_keeps_its_name(kind: str) -> None:
    plain = load_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    model = load_wan_vace("random:tiny", lora=LoraSpec(rank=4), blocks=BlockOptions(quantize=kind))
    said = model.quantization
    assert said is not None
    frozen = [sum(p.nbytes for p in m.parameters() if not p.requires_grad) for m in (plain, model)]
    assert [said.bytes_before, said.bytes_after] == frozen
    assert frozen[1] < frozen[0]
    assert 0 < said.velocity_error < 2 * ERRORS[kind]
    assert 0 < abs(said.loss_after / said.loss_before - 1) < 0.1
    assert f"{kind}, " in said.describe()
    assert f"the velocity moves by {said.velocity_error:.2%}, the loss by " in said.describe()
    assert model.base == plain.base
    assert model.num_parameters() == plain.num_parameters()
    assert training_flops(model, 100) == training_flops(plain, 100)


def test_the_estimate_knows(kind: str) -> None:
    options = {"lora": LoraSpec(rank=4), "blocks": BlockOptions(quantize=kind)}
    model, outline = load_wan_vace("random:tiny", **options), outline_wan_vace("random:tiny", **options)
    assert frozen_bytes(outline, kind) == frozen_bytes(model, kind)
    plain = outline_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    sizes = [estimate_bytes(m, "full", tokens=100, batch=1) for m in (model, outline, plain)]
    assert sizes[0] == sizes[1]
    made = 6 * 128 * 64  # the largest weight, in fp32 and in bf16
    assert sizes[2] - sizes[0] == frozen_bytes(plain, "none") - frozen_bytes(model, kind) - made


def test_what_cannot_be_quantized_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({"blocks": BlockOptions(quantize="fp8"), "trainable": "all"}, "trainable: all leaves none"),
        (
            {"blocks": BlockOptions(quantize="int8"), "lora": LoraSpec(use_dora=True)},
            "use_dora learns from the base's own weights",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load_wan_vace("random:tiny", **options)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ImportError, match=r"blocks.quantize: nf4 needs bitsandbytes: pip install -c constraints.txt '\.\[quantize\]'"
    ):
        load_wan_vace("random:tiny", blocks=BlockOptions(quantize="nf4"))
    with pytest.raises(ValueError, match="the base is quantized and its own weights are gone"):
        load_wan_vace("random:tiny", blocks=BlockOptions(quantize="int8")).merged_state(torch.float32)


def test_exports_of_a_quantized_run_go_with_the_base_as_it_was(
    quick_arguments: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model.blocks.quantize", "int8", "--trainer.max_steps", "2", "--ckpt_path", "last"]
    done = TrainingCLI.run(["fit", *quick_arguments, *options])
    assert "quantized  int8, 0.00 GiB frozen" in capsys.readouterr().out
    checkpoint = tmp_path / "run" / "step-000002.ckpt"
    assert all(".lora_" in name for name in read_checkpoint(checkpoint)["state_dict"])
    report = export_checkpoint(checkpoint, tmp_path / "out", pretrained=str(tiny_model), dtype="fp32")
    assert report.metadata.settings["quantize"] == "int8"
    base = WanVACETransformer3DModel.from_pretrained(tiny_model / "transformer").state_dict()
    merged = WanVACETransformer3DModel.from_pretrained(tmp_path / "out/merged/transformer").state_dict()
    factors = load_adapter(tmp_path / "out/pytorch_lora_weights.safetensors").state
    assert done.model.wan.lora_state().keys() == factors.keys()
    for name, weight in merged.items():
        module = name.removesuffix(".weight")
        change = torch.zeros_like(weight)
        if f"{module}.lora_A.weight" in factors:
            change = factors[f"{module}.lora_B.weight"] @ factors[f"{module}.lora_A.weight"]
            assert change.any()
        torch.testing.assert_close(weight, base[name] + change)
