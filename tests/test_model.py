"""The model: what is loaded, what learns, and that it computes what diffusers computes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from regen_train.encoders import pad_prompts
from regen_train.flow import interpolate, velocity_target
from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.model.assemble import empty_transformer, keep_time_embedding_precise
from regen_train.model.lora import add_lora, lora_parameters
from regen_train.model.random_init import random_config, random_transformer
from regen_train.schema import Bucket

BUCKET = Bucket(5, 32, 48)


def tiny(**options) -> WanVace:
    return load_wan_vace("random:tiny", **({"dtype": "fp32", "lora": LoraSpec(rank=4)} | options))


def inputs(model: WanVace, *, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents, geometry = model.geometry.latent_shape(BUCKET), model.geometry

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "noised_latents": draw(*latents),
        "sigma": torch.rand(batch, generator=generator),
        "prompt_embeds": draw(12, geometry.text_dim),
        "vace_context": draw(geometry.context_channels, *latents[1:]),
    }


def upstream(model: WanVace, given: dict[str, Tensor], dtype: torch.dtype, timestep: Tensor) -> Tensor:
    return model.transformer(
        hidden_states=given["noised_latents"].to(dtype),
        timestep=timestep,
        encoder_hidden_states=pad_prompts(given["prompt_embeds"].to(dtype).unbind()),
        control_hidden_states=given["vace_context"].to(dtype),
        return_dict=False,
    )[0]


def perturb_lora(model: WanVace, *, seed: int = 0, scale: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def loss_of(model: WanVace) -> Tensor:
    given = inputs(model)
    clean, noise = given["noised_latents"], inputs(model, seed=1)["noised_latents"]
    velocity = model(**given | {"noised_latents": interpolate(clean, noise, given["sigma"])})
    return (velocity - velocity_target(clean, noise)).square().mean()


def gradients(model: WanVace) -> dict[str, Tensor]:
    loss_of(model).backward()
    return {name: parameter.grad for name, parameter in model.trained_parameters().items()}


@pytest.mark.parametrize(("targets", "modules", "millions"), [("attn+ffn", 150, "21.87"), ("all", 166, "23.45")])
def test_lora_of_the_real_model_has_the_published_size(targets, modules, millions):
    transformer = empty_transformer(random_config("random:wan2.1-vace-1.3b"))
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 2_153_972_032
    with torch.device("meta"):
        add_lora(transformer, LoraSpec(rank=32, targets=targets), seed=0)
    factors = lora_parameters(transformer)
    assert len(factors) == 2 * modules
    assert all(name.startswith("vace_blocks.") for name in factors)
    assert f"{sum(factor.numel() for factor in factors.values()) / 1e6:.2f}" == millions


def test_the_big_model_is_as_published():
    transformer = empty_transformer(random_config("random:14b"))
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 17_337_592_896


def test_velocity_is_upstreams_at_a_thousand_sigma():
    model = tiny(lora=None)
    given = inputs(model)
    velocity = model(**given)
    torch.testing.assert_close(velocity, upstream(model, given, torch.float32, 1000 * given["sigma"]))
    assert (velocity - upstream(model, given, torch.float32, given["sigma"])).abs().max() > 0.05


def test_words_after_the_zeros_that_are_counted_are_heard():
    model = tiny(lora=None)
    given = inputs(model)
    given["prompt_embeds"] = pad_prompts(given["prompt_embeds"].unbind())
    for place in (30, 31, 32, 510, 511):
        spoken = given | {"prompt_embeds": given["prompt_embeds"].clone()}
        spoken["prompt_embeds"][1, place] = 3.0
        torch.testing.assert_close(
            model(**spoken), upstream(model, spoken, torch.float32, 1000 * given["sigma"]), rtol=1e-5, atol=1e-6
        )


def test_bf16_velocity_is_upstreams_bit_for_bit():
    model = tiny(dtype="bf16", lora=None)
    given = inputs(model)
    velocity = model(**given)
    expected = upstream(model, given, torch.bfloat16, 1000 * given["sigma"])
    assert velocity.dtype == torch.float32
    assert torch.equal(velocity, expected.float())


def test_bf16_gradients_are_a_bare_loops_but_for_the_time_embedding_that_autocast_rounds():
    model, bare = tiny(dtype="bf16"), random_transformer(random_config("random:tiny"), dtype=torch.bfloat16, seed=0)
    perturb_lora(model)
    given, seen = inputs(model), []
    model(**given).square().mean().backward()
    add_lora(bare, LoraSpec(rank=4), seed=0)
    bare.load_state_dict(model.transformer.state_dict())
    for _ in ("as it is", "with the time embedding in fp32"):
        bare.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            velocity = upstream(SimpleNamespace(transformer=bare), given, torch.bfloat16, 1000 * given["sigma"])
        velocity.float().square().mean().backward()
        pairs = zip(lora_parameters(bare).values(), model.trained_parameters().values(), strict=True)
        seen.append(all(torch.equal(theirs.grad, ours.grad) for theirs, ours in pairs))
        keep_time_embedding_precise(bare)
    assert seen == [False, True]


def test_timesteps_are_not_rounded_to_bf16():
    model = tiny(dtype="bf16")
    seen = []
    model.transformer.condition_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(**inputs(model) | {"sigma": torch.tensor([0.9011, 0.9012])})
    assert seen[0].dtype == torch.float32
    assert seen[0].tolist() == pytest.approx([901.1, 901.2])


def test_bf16_keeps_what_wan_keeps_in_fp32():
    transformer = tiny(dtype="bf16", lora=None).transformer
    kept = {name for name, parameter in transformer.named_parameters() if parameter.dtype == torch.float32}
    assert "condition_embedder.time_embedder.linear_1.weight" in kept
    assert "blocks.0.norm2.weight" in kept
    assert "blocks.0.attn1.norm_q.weight" not in kept
    assert all(any(part in name for part in transformer._keep_in_fp32_modules) for name in kept)


def test_fresh_lora_leaves_the_output_alone():
    bare, adapted = tiny(lora=None), tiny()
    assert torch.equal(bare(**inputs(bare)), adapted(**inputs(bare)))


def test_lora_starts_the_same_whatever_the_global_random_state_is():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = tiny(seed=3).lora_state()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    second, other = tiny(seed=3).lora_state(), tiny(seed=4).lora_state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_only_lora_learns_and_every_factor_does():
    model = tiny(lora=LoraSpec(rank=4, targets="all"))
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.1)
    first = gradients(model)
    assert all(gradient.any() == ("lora_B" in name) for name, gradient in first.items())
    optimizer.step()
    optimizer.zero_grad()
    second = gradients(model)
    assert all(gradient.any() for gradient in second.values())
    assert all(p.grad is None and torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if ".lora_" in n
    }


def test_nothing_frozen_before_the_first_hint_costs_a_backward():
    model = tiny(checkpointing="full")
    recorded: dict[str, bool] = {}
    calls: dict[str, int] = {}
    parts = {"patch": model.transformer.patch_embedding, "vace_patch": model.transformer.vace_patch_embedding}
    parts |= {"text": model.transformer.condition_embedder.text_embedder}
    parts |= {f"block {i}": block for i, block in enumerate(model.transformer.blocks)}
    for name, module in parts.items():
        module.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
        module.register_forward_hook(lambda _m, _a, out, name=name: recorded.update({name: out.requires_grad}))
    gradients(model)
    later = {"block 1", "block 2", "block 3"}
    assert {name for name, needs_backward in recorded.items() if needs_backward} == later
    assert {name for name, count in calls.items() if count > 1} == later, "others were recomputed for a backward"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_changes_no_gradient(dropout):
    results = {}
    for checkpointing in ("none", "full"):
        model = tiny(lora=LoraSpec(rank=4, dropout=dropout), checkpointing=checkpointing).train()
        perturb_lora(model)
        torch.manual_seed(0)
        results[checkpointing] = gradients(model)
    for name, gradient in results["none"].items():
        assert torch.equal(gradient, results["full"][name]), name


@pytest.mark.parametrize(
    "spec",
    [
        LoraSpec(rank=4, alpha=7.0),
        LoraSpec(rank=4, targets="all"),
        LoraSpec(rank=4, use_dora=True),
        LoraSpec(rank=4, alpha=2.0, use_rslora=True),
    ],
)
def test_merged_weights_compute_the_same(spec):
    model, plain = tiny(lora=spec), tiny(lora=None)
    perturb_lora(model)
    given = inputs(model)
    before = plain(**given)
    plain.transformer.load_state_dict(model.merged_state(torch.float32))
    expected = model(**given)
    torch.testing.assert_close(plain(**given), expected, atol=1e-5, rtol=0)
    assert (before - expected).abs().max() > 0.01


def test_merging_rounds_once():
    model = tiny(dtype="bf16", lora=LoraSpec(rank=4))
    perturb_lora(model)
    name = "vace_blocks.0.attn1.to_q"
    layer = model.transformer.get_submodule(name)
    state = model.lora_state()
    update = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    expected = (layer.base_layer.weight.float() + update).bfloat16()
    assert torch.equal(model.merged_state(torch.bfloat16)[f"{name}.weight"], expected)


@pytest.mark.parametrize(
    ("trainable", "prefixes"), [("vace", ("vace_blocks.", "vace_patch_embedding.")), ("all", ("",))]
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_weights_themselves_can_be_trained(trainable, prefixes, dtype):
    model = tiny(dtype=dtype, trainable=trainable)
    trained = model.trained_parameters()
    assert model.lora is None
    assert set(trained) == {n for n, _ in model.transformer.named_parameters() if n.startswith(prefixes)}
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert all(gradient.any() for gradient in gradients(model).values())
    perturb_lora(model)
    assert model.base.sha256 == tiny().base.sha256, "the base is what was loaded"


@pytest.mark.parametrize("trainable", ["lora", "vace"])
def test_what_is_trained_travels(trainable):
    source, target = tiny(trainable=trainable), tiny(trainable=trainable)
    perturb_lora(source)
    state = source.trainable_state()
    target.load_trainable_state(state)
    assert torch.equal(source(**inputs(source)), target(**inputs(source)))
    state.popitem()
    state["strange"] = torch.zeros(1)
    name = next(iter(state))
    state[name] = state[name][..., :1]
    with pytest.raises(ValueError, match=r"3 faults: missing .*; unexpected strange; .* has shape"):
        target.load_trainable_state(state)


def test_what_is_returned_does_not_follow_the_training():
    model = tiny()
    state = model.lora_state()
    perturb_lora(model)
    assert not any(torch.equal(tensor, model.lora_state()[name]) for name, tensor in state.items())


def test_conditioning_scale_may_be_given_per_block():
    model = tiny(lora=None)
    given = inputs(model)
    assert torch.equal(model(**given, conditioning_scale=0.5), model(**given, conditioning_scale=[0.5, 0.5]))
    assert not torch.equal(model(**given, conditioning_scale=[0.5, 0.0]), model(**given, conditioning_scale=[0.0, 0.5]))
    with pytest.raises(ValueError, match="one number or 2, one per VACE block, got 3"):
        model(**given, conditioning_scale=[1.0, 1.0, 1.0])


def test_a_copy_is_a_model_of_its_own():
    model = tiny(dtype="bf16", trainable="all")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert twin(**inputs(twin)).abs().max() > 0.01
    embedder = twin.transformer.condition_embedder.time_embedder
    assert embedder(torch.ones(1, 32)).any(), "the copy's time embedding still reads the original's weights"


def test_counts_parameters():
    model = tiny()
    count = model.num_parameters()
    assert count.trainable == sum(tensor.numel() for tensor in model.lora_state().values())
    assert count.total == count.trainable + tiny(lora=None).num_parameters().total
    assert tiny(lora=None).num_parameters().trainable == 0


def test_random_weights_follow_from_the_seed_alone():
    assert tiny(seed=0).base.sha256 == tiny(seed=0, dtype="bf16").base.sha256 != tiny(seed=1).base.sha256
    assert all(p.any() for n, p in tiny(lora=None).named_parameters() if n.endswith("proj_out.weight"))


def test_faulty_options_are_all_named():
    with pytest.raises(ValueError, match=r"rank must be at least 1, got 0; alpha .*, got -1.0; dropout .*, got 1.5"):
        LoraSpec(rank=0, alpha=-1.0, dropout=1.5)
    with pytest.raises(ValueError, match=r"lora\.init needs trainable: lora"):
        tiny(trainable="vace", lora=LoraSpec(init="somewhere.safetensors"))
