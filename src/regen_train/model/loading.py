"""From a name to a model that is ready to train or sample."""

from typing import get_args

from regen_train.model.assemble import keep_trained_norms_quiet
from regen_train.model.attention import AUTO, set_attention
from regen_train.model.base import load_transformer
from regen_train.model.block_options import BlockOptions
from regen_train.model.blocks import check_blocks, set_blocks
from regen_train.model.checkpointing import Checkpointing, set_checkpointing
from regen_train.model.context_parallel import share_tokens
from regen_train.model.initial_lora import read_initial_lora
from regen_train.model.lora import LoraSpec, add_lora
from regen_train.model.memory import Workload, choose_checkpointing
from regen_train.model.sharded_loading import load_sharded
from regen_train.model.sharding import Spread
from regen_train.model.wan_vace import VACE_PARTS, Trainable, WanVace
from regen_train.pretrained import DTYPES, Precision

CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)

_DEFAULT_LORA = LoraSpec()
_ALONE = Spread()
_PLAIN_BLOCKS = BlockOptions()


def load_wan_vace(
    pretrained: str,
    *,
    dtype: Precision = "bf16",
    lora: LoraSpec | None = _DEFAULT_LORA,
    trainable: Trainable = "lora",
    revision: str | None = None,
    checkpointing: Checkpointing = "none",
    workload: Workload | None = None,
    attention: str = AUTO,
    blocks: BlockOptions = _PLAIN_BLOCKS,
    seed: int = 0,
    spread: Spread = _ALONE,
) -> WanVace:
    """Load Wan VACE and make it ready to train or sample.

    Args:
        pretrained: A diffusers pipeline folder or its ``transformer`` folder; a hub id such as
            ``Wan-AI/Wan2.1-VACE-1.3B-diffusers``; an original-named ``.safetensors`` file or the folder around it; or
            random weights: ``random:wan2.1-vace-1.3b``, ``random:14b``, ``random:tiny``.
        dtype: Precision of the frozen weights and the computation, bf16 or fp32. Norms, time embedding and modulation
            stay in fp32, as Wan needs; so does all that is trained.
        lora: The factors to insert; null for none. Used with ``trainable: lora`` only.
        trainable: ``lora`` = the factors; ``vace`` = the VACE blocks and their patch embedding; ``all`` = everything.
        revision: Branch, tag or commit on the hub.
        checkpointing: What the backward pass computes again to save memory; gradients are the same. ``none``; ``full``
            = every block, from its input; ``selective`` = all but attention; ``offload`` = ``full`` with the inputs in
            CPU memory meanwhile; ``auto`` = the fastest that fits ``workload``.
        workload: The largest step to come; ``auto`` needs it.
        attention: Kernel of attention by diffusers' name, such as ``_native_flash`` or ``flash``; ``auto`` leaves it
            to PyTorch, or to what the environment names in ``DIFFUSERS_ATTN_BACKEND``.
        blocks: Whether the transformer's blocks are compiled, quantized or swapped.
        seed: Of the factors' start and of random weights.
        spread: How processes share the model; by default each has its own.

    Raises:
        FileNotFoundError: Nothing is found under ``pretrained`` or ``lora.init``; says what would be.
        ValueError: An option, the weights or the adapter to start from do not fit; lists all faults.
        ImportError: A quantization needs a package that is not installed.
    """
    _check_options(dtype, lora, trainable, checkpointing, workload)
    check_blocks(
        blocks,
        lora=lora if trainable == "lora" else None,
        trainable=trainable,
        checkpointing=checkpointing,
        fully_sharded=spread.weights is not None,
        shares_tokens=spread.tokens is not None,
    )
    weights = spread.weights
    if weights is None:
        model = _load_whole(pretrained, dtype=dtype, lora=lora, trainable=trainable, revision=revision, seed=seed)
    else:
        model = load_sharded(
            pretrained, weights, dtype=dtype, lora=lora, trainable=trainable, revision=revision, seed=seed
        )
    if model.lora is not None and model.lora.init is not None:
        model.load_lora_state(read_initial_lora(model.lora.init, model.lora, model.base))
    if spread.by_deepspeed:
        model.base  # noqa: B018 - hash the weights while they are whole
    if trainable != "lora":
        keep_trained_norms_quiet(model.transformer)
    model.block_options = blocks
    if checkpointing == "auto":
        assert workload is not None
        checkpointing = choose_checkpointing(model, workload)
    model.checkpointing, model.spread = checkpointing, spread
    set_checkpointing(model.transformer, checkpointing)
    # before attention, which may be made for a GPU alone: quantizing compares the model with itself where it lies
    set_blocks(model, blocks, checkpointing=checkpointing)
    if spread.tokens is not None:
        share_tokens(model.transformer, spread.tokens)
    set_attention(model.transformer, attention, dtype=model.dtype, checkpointing=checkpointing)
    return model


def _check_options(
    dtype: str, lora: LoraSpec | None, trainable: str, checkpointing: str, workload: Workload | None
) -> None:
    for name, value, known in (
        ("dtype", dtype, DTYPES),
        ("trainable", trainable, ("lora", "vace", "all")),
        ("checkpointing", checkpointing, CHECKPOINTING),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if checkpointing == "auto" and workload is None:
        raise ValueError("checkpointing: auto needs workload, the largest step to come; or name a policy")
    if trainable != "lora" and lora is not None and lora.init is not None:
        raise ValueError(f"lora.init needs trainable: lora, got trainable: {trainable}; merge the adapter first")


def _load_whole(
    pretrained: str, *, dtype: Precision, lora: LoraSpec | None, trainable: Trainable, revision: str | None, seed: int
) -> WanVace:
    loaded = load_transformer(pretrained, dtype=DTYPES[dtype], revision=revision, seed=seed)
    model = WanVace(loaded, dtype=DTYPES[dtype], lora=lora if trainable == "lora" else None, trainable=trainable)
    if model.lora is not None:
        add_lora(model.transformer, model.lora, seed=seed)
    if trainable != "lora":
        _unfreeze(model)
    return model


def _unfreeze(model: WanVace) -> None:
    model.base  # noqa: B018 - hash the weights before they move
    for name, parameter in model.transformer.named_parameters():
        if model.trainable == "all" or name.startswith(VACE_PARTS):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
