"""Attention by name: the same gradients, and a clear refusal of what cannot be trained with here."""

from functools import partial

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from test_policies import gradients, loss_of, tiny

from regen_train.model.attention import try_backend
from regen_train.model.padding import pad_shortly
from regen_train.schema import MAX_PROMPT_TOKENS

CPU = torch.device("cpu")


def gradients_with(attention: str, **options) -> dict[str, torch.Tensor]:
    model = tiny("full", attention=attention, **options)
    loss_of(model).backward()
    return gradients(model)


@pytest.mark.parametrize(("attention", "tolerance"), [("native", 0.0), ("_native_flash", 0.0), ("_native_math", 1e-5)])
def test_no_kernel_changes_a_gradient(attention, tolerance, monkeypatch):
    whole = partial(pad_shortly, num_tokens=MAX_PROMPT_TOKENS)  # named kernels compute padding, auto counts it
    monkeypatch.setattr("regen_train.model.wan_vace.pad_shortly", lambda prompts, **_: whole(prompts))
    before = _AttentionBackendRegistry.get_active_backend()
    expected, found = gradients_with("auto"), gradients_with(attention)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=tolerance, rtol=tolerance)
    assert _AttentionBackendRegistry.get_active_backend() == before, "other models keep their attention"


def test_the_named_kernel_is_the_one_that_runs():
    operators = {
        name: try_backend(name, device=CPU, dtype=torch.float32, head_dim=32).operators
        for name in ("_native_flash", "_native_math")
    }
    fused = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert fused in operators["_native_flash"]
    assert fused not in operators["_native_math"]


def test_refusals_say_in_a_line_what_can_be_used():
    with pytest.raises(
        ValueError, match="attention must be auto or a name of diffusers' dispatcher, got 'fast'; on cpu in "
    ) as error:
        tiny("none", attention="fast")
    text = str(error.value)
    assert "can be used: auto, native, " in text or "can be used: auto, flex, native, " in text
    assert "_native_cudnn" not in text
    assert "\n" not in text
    with pytest.raises(
        ValueError, match=r"attention: flash cannot be used on cpu: .*flash-attn.*; on cpu in "
    ) as error:
        tiny("none", attention="flash")
    assert "\n" not in str(error.value)


def test_selective_refuses_a_kernel_whose_output_it_cannot_keep(monkeypatch):
    assert tiny("selective", attention="_native_flash").checkpointing == "selective"
    with pytest.raises(ValueError, match="attention: _native_math calls none that it knows; use checkpointing: full"):
        tiny("selective", attention="_native_math")
    assert tiny("full").checkpointing == "full"
    monkeypatch.setattr("diffusers.utils.constants.DIFFUSERS_ATTN_BACKEND", "_native_math")
    assert tiny("full").checkpointing == "full"
    with pytest.raises(ValueError, match=r"attention: _native_math \(DIFFUSERS_ATTN_BACKEND\) calls none"):
        tiny("selective")


def test_a_kernel_without_backward_is_refused(monkeypatch):
    monkeypatch.setattr("diffusers.models.attention_dispatch.dispatch_attention_fn", lambda q, k, v: q.detach())
    assert try_backend("native", device=CPU, dtype=torch.float32, head_dim=32).fault == "it has no backward pass"
