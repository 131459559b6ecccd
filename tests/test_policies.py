"""Checkpointing: whatever is kept or computed again, the gradients are the same; and each policy keeps what it says."""

import copy
import logging
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from regen_train.model import BlockOptions, LoraSpec, WanVace, Workload, estimate_bytes, load_wan_vace
from regen_train.model.blocks import check_blocks
from regen_train.model.checkpointing import POLICIES, set_checkpointing
from regen_train.model.live_memory import LiveMemory
from regen_train.model.memory import USABLE_SHARE, candidate_policies, choose_checkpointing, estimate_hidden_states
from regen_train.schema import Bucket

BUCKET = Bucket(5, 32, 48)
SPARING = [policy for policy in POLICIES if policy != "none"]


def tiny(policy: str, **options) -> WanVace:
    model = load_wan_vace(
        "random:tiny", **({"dtype": "fp32", "lora": LoraSpec(rank=4), "checkpointing": policy} | options)
    ).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(model: WanVace, *, seed: int = 0, bucket: Bucket = BUCKET) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents, geometry = model.geometry.latent_shape(bucket), model.geometry
    return {
        "noised_latents": torch.randn(2, *latents, generator=generator),
        "sigma": torch.rand(2, generator=generator),
        "prompt_embeds": torch.randn(2, 12, geometry.text_dim, generator=generator),
        "vace_context": torch.randn(2, geometry.context_channels, *latents[1:], generator=generator),
    }


def loss_of(model: WanVace, *, seed: int = 0) -> Tensor:
    return model(**inputs(model, seed=seed)).square().mean()


def gradients(model: WanVace) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.trained_parameters().items()}


class Attention(TorchDispatchMode):
    """Counts fused attention's forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        self.calls += name.startswith("aten::_scaled_dot_product") and "backward" not in name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [{"lora": LoraSpec(rank=4)}, {"lora": LoraSpec(rank=4, dropout=0.5)}, {"trainable": "vace"}, {"trainable": "all"}],
    ids=["lora", "dropout", "vace", "all"],
)
def test_no_policy_changes_a_gradient(options, dtype):
    results = {}
    for policy in POLICIES:
        model = tiny(policy, dtype=dtype, **options)
        torch.manual_seed(0)  # of the dropout
        (loss_of(model) + loss_of(model, seed=1)).backward()  # two passes before one backward, as in a mixed batch
        results[policy] = gradients(model)
    assert all(gradient.any() for gradient in results["none"].values())
    for policy in SPARING:
        for name, gradient in results["none"].items():
            assert torch.equal(gradient, results[policy][name]), f"{policy}: {name}"


def test_selective_never_computes_attention_twice():
    again = {}
    for policy in POLICIES:
        loss = loss_of(tiny(policy))
        with Attention() as attention:
            loss.backward()
        again[policy] = attention.calls
    # two attentions in each of two VACE blocks and three of the four main blocks
    assert again == {"none": 0, "selective": 0, "full": 10, "offload": 10}


@pytest.mark.filterwarnings("ignore:A saved_tensors_hooks context")  # the test's own, which selective passes by
@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_before_the_first_hint_keep_nothing(policy):
    model = tiny(policy)
    kept, inside = Counter(), []

    def pack(tensor: Tensor) -> Tensor:
        kept[inside[-1]] += tensor.nbytes
        return tensor

    transformer = model.transformer
    learning = {f"block {i}": block for i, block in enumerate(transformer.blocks)}
    frozen = {"block 0": learning.pop("block 0"), "text and time": transformer.condition_embedder}
    frozen |= {"patches": transformer.patch_embedding, "VACE patches": transformer.vace_patch_embedding}
    learning |= {f"VACE block {i}": block for i, block in enumerate(transformer.vace_blocks)}
    for name, module in (learning | frozen).items():
        module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
        module.register_forward_hook(lambda *_: inside.append("elsewhere"))
    inside.append("elsewhere")
    with saved_tensors_hooks(pack, lambda tensor: tensor), LiveMemory() as memory:
        loss = loss_of(model)
    assert loss.requires_grad
    assert memory.now > 0
    assert not set(frozen) & set(kept)
    # Inside a block that is computed again nothing is kept either, but by its own bookkeeping.
    assert set(kept) - {"elsewhere"} == (set(learning) if policy == "none" else set())


def test_each_policy_keeps_less_than_the_one_before():
    kept = {}
    for policy in POLICIES:
        model = tiny(policy)
        given = inputs(model, bucket=Bucket(9, 64, 64))
        with LiveMemory() as memory:
            loss = model(**given).square().mean()
            kept[policy] = memory.now
        assert loss.requires_grad
    assert kept["none"] > 4 * kept["selective"] > 6 * kept["full"]
    # On a CPU the copies count like what they replace: more would mean that the originals are still held.
    assert kept["offload"] == pytest.approx(kept["full"], rel=0.01)


def test_offload_copies_what_each_learning_block_was_given():
    model = tiny("offload")
    offloaded = model.transformer._gradient_checkpointing_func.args[0]
    loss = loss_of(model)
    assert offloaded.num_copies == 5, "two VACE blocks, and three main blocks after the first hint"
    loss.backward(retain_graph=True)
    first = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    loss.backward()
    assert all(torch.equal(gradient, first[name]) for name, gradient in gradients(model).items())
    assert offloaded.num_copies == 5
    with torch.no_grad():
        loss_of(model)
    assert offloaded.num_copies == 5, "sampling keeps nothing"


@pytest.mark.parametrize("policy", SPARING)
def test_a_copy_of_the_model_checkpoints_by_itself(policy):
    model = tiny(policy)
    loss_of(model).backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loss_of(twin).backward()
    assert all(torch.equal(gradient, gradients(model)[name]) for name, gradient in gradients(twin).items())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_estimate_is_what_is_counted(policy, dtype, monkeypatch):
    # As beside the tokens of a real clip, prompts must not count; padded to 512 they would outnumber these.
    monkeypatch.setattr("regen_train.model.wan_vace.pad_shortly", lambda prompts, *, num_tokens: prompts)
    model = tiny(policy, dtype=dtype)
    bucket = Bucket(9, 96, 96)
    given = inputs(model, bucket=bucket)
    with LiveMemory() as memory:
        model(**given).square().mean().backward()
    tokens = model.geometry.num_tokens(bucket, reference=False)
    hidden_state = 2 * tokens * model.hidden_size * model.dtype.itemsize
    counted = memory.peak / hidden_state
    # On a CPU offload's copies count as well: five blocks' inputs.
    estimated = estimate_hidden_states(model, policy) + 5 * (policy == "offload")
    assert 0.9 < estimated / counted < 1.35, f"{estimated:.1f} hidden states estimated, {counted:.1f} counted"


def test_auto_takes_the_fastest_that_fits(caplog):
    model = tiny("none", dtype="bf16")
    needs = {policy: estimate_bytes(model, policy, tokens=4096, batch=1) for policy in POLICIES}
    assert list(needs.values()) == sorted(needs.values(), reverse=True)
    caplog.set_level(logging.INFO)
    for policy in POLICIES:
        workload = Workload(4096, 1, int(needs[policy] / USABLE_SHARE) + 1, "cuda")
        assert choose_checkpointing(model, workload) == policy
        assert f"checkpointing auto: {policy}; estimated GiB for 1 x 4,096 tokens: none " in caplog.messages[-1]
    assert choose_checkpointing(model, Workload(4096, 1, 1000, "cuda")) == "offload"
    assert caplog.records[-1].levelno == logging.WARNING
    assert "none fits by estimate: use smaller buckets or a smaller per_device_batch_size" in caplog.messages[-1]
    assert choose_checkpointing(model, Workload(4096, 1, 1000, "cpu")) == "full", "a CPU has nowhere to offload to"


def test_auto_never_takes_what_is_refused_of_compiled_and_swapped_blocks():
    plain = ["none", "selective", "full", "offload"]
    for blocks in (BlockOptions(), BlockOptions(compile=True), BlockOptions(swap=1)):
        assert candidate_policies(blocks, "cuda") == plain
    both = BlockOptions(compile=True, swap=1)
    assert candidate_policies(both, "cuda") == ["none", "full", "offload"]
    assert candidate_policies(both, "cpu") == ["none", "full"]
    check_blocks(both, checkpointing="full")
    with pytest.raises(ValueError, match="got selective"):
        check_blocks(both, checkpointing="selective")


def test_auto_without_a_workload_is_refused():
    with pytest.raises(ValueError, match="checkpointing: auto needs workload"):
        load_wan_vace("random:tiny", checkpointing="auto")


def test_switching_off_again_keeps_everything():
    model = tiny("selective")
    set_checkpointing(model.transformer, "none")
    assert not model.transformer.gradient_checkpointing
