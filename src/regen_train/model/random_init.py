"""Wan VACE with random weights, by name: for benchmarks and tests, where no weights can be had."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.model.assemble import assign_state, empty_transformer

RANDOM_PREFIX = "random:"

_WAN: dict[str, Any] = {"patch_size": (1, 2, 2), "in_channels": 16, "out_channels": 16, "vace_in_channels": 96}
_WAN_14B: dict[str, Any] = _WAN | {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "ffn_dim": 13824,
    "num_layers": 40,
    "vace_layers": list(range(0, 40, 5)),
}
RANDOM_CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": _WAN
    | {
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "text_dim": 32,
        "freq_dim": 32,
        "ffn_dim": 128,
        "num_layers": 4,
        "vace_layers": [0, 2],
    },
    "wan2.1-vace-1.3b": _WAN
    | {
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "ffn_dim": 8960,
        "num_layers": 30,
        "vace_layers": list(range(0, 30, 2)),
    },
    "wan2.1-vace-14b": _WAN_14B,
    "14b": _WAN_14B,
}


def random_config(pretrained: str) -> dict[str, Any]:
    """Return the transformer's config of a named random initialisation such as ``random:tiny``.

    Raises:
        ValueError: There is no such name.
    """
    name = pretrained.removeprefix(RANDOM_PREFIX)
    if name not in RANDOM_CONFIGS:
        names = ", ".join(RANDOM_PREFIX + known for known in RANDOM_CONFIGS)
        raise ValueError(f"there is no random initialisation {pretrained!r}; known are {names}")
    return RANDOM_CONFIGS[name]


def random_transformer(config: dict[str, Any], *, dtype: torch.dtype, seed: int) -> Any:
    """Build a transformer and fill it with random weights, tensor by tensor in its final precision.

    Every tensor has its own generator, keyed by its name, so that the weights depend neither on the order of filling
    nor, up to rounding, on the precision. Norms start at one, all else as in PyTorch's layers; no projection is zero,
    since a zero projection would keep gradient from most of the LoRA.

    Args:
        config: Arguments of diffusers' ``WanVACETransformer3DModel``.
        dtype: Precision of all but the modules that Wan keeps in fp32.
        seed: Same seed, same weights.
    """
    model, random_state = empty_transformer(config), RandomState(config, dtype, seed)
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        drawn = pool.map(random_state.__getitem__, random_state)
        return assign_state(model, dict(zip(random_state, drawn, strict=True)), dtype)


class RandomState(Mapping[str, Tensor]):
    """The weights of `random_transformer`, each drawn when it is asked for and then forgotten.

    Args:
        config: Arguments of diffusers' ``WanVACETransformer3DModel``.
        dtype: What they are rounded to.
        seed: Same seed, same weights.
    """

    def __init__(self, config: dict[str, Any], dtype: torch.dtype, seed: int) -> None:
        self.dtype, self.seed = dtype, seed
        self._shapes = {name: tensor.shape for name, tensor in empty_transformer(config).state_dict().items()}

    def __getitem__(self, name: str) -> Tensor:
        return _random_tensor(name, self._shapes, self.seed).to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _random_tensor(name: str, shapes: dict[str, torch.Size], seed: int) -> Tensor:
    shape = shapes[name]
    if ".norm" in name:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    generator = generator_for(seed, name, "random_init")
    if name.endswith("scale_shift_table"):
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
    weight = shapes[name.removesuffix("bias") + "weight"] if name.endswith("bias") else shape
    bound = float(weight.numel() / weight[0]) ** -0.5
    drawn: Tensor = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return drawn
