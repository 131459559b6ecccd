"""A model whose weights are spread over processes, loaded so that none ever holds it whole."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from regen_train.model.assemble import compare_states, empty_transformer
from regen_train.model.base import BaseInfo, BaseWeights, LoadedTransformer, find_weights
from regen_train.model.lora import LoraSpec, first_lora_a, lora_parameters
from regen_train.model.outline import outline_of
from regen_train.model.random_init import RandomState
from regen_train.model.sharding import materialize, shard
from regen_train.model.wan_vace import Trainable, WanVace
from regen_train.pretrained import DTYPES, Precision, state_sha256


def load_sharded(
    pretrained: str,
    mesh: DeviceMesh,
    *,
    dtype: Precision,
    lora: LoraSpec | None,
    trainable: Trainable,
    revision: str | None,
    seed: int,
) -> WanVace:
    """Build the model without weights, spread it, and fill in each process's parts tensor by tensor.

    Of a file on disk, mapped into memory, a process keeps its parts and reads the rest in passing.

    Args:
        pretrained: As for `load_wan_vace`.
        mesh: As for `shard`.
        dtype: As for `load_wan_vace`.
        lora: As there; its ``init`` is left to the caller.
        trainable: As there.
        revision: As there.
        seed: As there.

    Raises:
        FileNotFoundError: Nothing is found under ``pretrained``; says what would be.
        ValueError: What is found is no Wan VACE transformer.
    """
    weights = find_weights(pretrained, dtype=DTYPES[dtype], revision=revision, seed=seed)
    empty = empty_transformer(weights.config)
    if not isinstance(weights.state, RandomState):
        compare_states(weights.state, empty.state_dict(), what=f"the weights of {weights.name}")
    loaded = LoadedTransformer(empty, weights.name, weights.revision, weights.temporal_factor)
    model = outline_of(loaded, dtype=dtype, lora=lora, trainable=trainable)
    model.base = BaseInfo(weights.name, weights.revision, _hash_once(weights))
    shard(model.transformer, mesh)
    _fill(model, weights, _device(mesh), seed)
    return model


def _hash_once(weights: BaseWeights) -> str:
    """Hash on the first process, which tells the others."""
    told = [state_sha256(weights.state) if torch.distributed.get_rank() == 0 else ""]
    torch.distributed.broadcast_object_list(told)
    return told[0]


def _device(mesh: DeviceMesh) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")


def _fill(model: WanVace, weights: BaseWeights, device: torch.device, seed: int) -> None:
    transformer, precise = model.transformer, set(model.transformer._keep_in_fp32_modules)
    factors = {id(parameter): name for name, parameter in lora_parameters(transformer).items()}
    for name, parameter in list(transformer.named_parameters()):
        if ".lora_" in name:
            value = _start_of(factors[id(parameter)], parameter, weights, model.dtype, seed)
        else:
            value = weights.state[name.replace(".base_layer.", ".")]
            value = value if precise & set(name.split(".")) else value.to(model.dtype)
        materialize(transformer, name, value, device)


def _start_of(name: str, parameter: nn.Parameter, weights: BaseWeights, dtype: torch.dtype, seed: int) -> Tensor:
    """Return what `add_lora` starts a factor from."""
    if name.endswith("lora_A.weight"):
        return first_lora_a(name, parameter.shape, seed=seed)
    if name.endswith("lora_B.weight"):
        return torch.zeros(parameter.shape)
    layer = name.removesuffix(".lora_magnitude_vector")  # DoRA's magnitudes: the norms of the weight's rows
    norms: Tensor = torch.linalg.norm(weights.state[f"{layer}.weight"].to(dtype), dim=1)
    return norms
