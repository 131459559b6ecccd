"""Load the frozen transformer: diffusers folder, hub id, original-named files or random weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regen_train.adapter import to_diffusers_names
from regen_train.model.assemble import assign_state, empty_transformer
from regen_train.model.random_init import RANDOM_PREFIX, RandomState, random_config, random_transformer
from regen_train.pretrained import TOY, read_config, read_safetensors, resolve_folder

# The only factor that no transformer's config states. It is read from the VAE's config where there is one beside the
# transformer; 4 is what every VAE that diffusers' AutoencoderKLWan can build has.
WAN_TEMPORAL_FACTOR = 4
DIFFUSERS_CLASS = "WanVACETransformer3DModel"
_COMFYUI_PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class BaseInfo:
    """Which weights a LoRA was trained on.

    Args:
        name: Hub id, folder name, file name or the name of the random initialisation.
        revision: Commit on the hub, else None.
        sha256: Over the bf16-rounded tensors as loaded, under diffusers' names: the same for every format, file
            layout and precision of one base.
    """

    name: str
    revision: str | None
    sha256: str


@dataclass(frozen=True)
class LoadedTransformer:
    """A transformer and where it came from.

    Args:
        module: diffusers' ``WanVACETransformer3DModel``.
        name: Hub id, folder name, file name or the name of the random initialisation; never a full path.
        revision: Commit on the hub, else None.
        temporal_factor: Pixel frames per latent frame.
    """

    module: Any
    name: str
    revision: str | None
    temporal_factor: int


@dataclass(frozen=True)
class BaseWeights:
    """The tensors of a base, mapped or drawn when they are asked for, and where they come from.

    Args:
        state: Under diffusers' names, as stored.
        config: Of diffusers' transformer.
        name: As in `LoadedTransformer`.
        revision: As there.
        temporal_factor: As there.
        folder: The transformer's folder, where it comes in diffusers' format.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    name: str
    revision: str | None = None
    temporal_factor: int = WAN_TEMPORAL_FACTOR
    folder: Path | None = None


def load_transformer(pretrained: str, *, dtype: torch.dtype, revision: str | None, seed: int) -> LoadedTransformer:
    """Load the transformer that `load_wan_vace` describes, frozen and in evaluation mode.

    Raises:
        FileNotFoundError: Nothing is found under the name; says what would be.
        ValueError: What is found is no Wan VACE transformer.
    """
    if pretrained.startswith(RANDOM_PREFIX):
        module = random_transformer(random_config(pretrained), dtype=dtype, seed=seed)
        return LoadedTransformer(module, pretrained, None, WAN_TEMPORAL_FACTOR)
    weights = find_weights(pretrained, dtype=dtype, revision=revision, seed=seed)
    if weights.folder is not None:
        module = _load_diffusers(weights.folder, dtype)
    else:
        module = assign_state(empty_transformer(weights.config), weights.state, dtype)
    return LoadedTransformer(module, weights.name, weights.revision, weights.temporal_factor)


def find_weights(pretrained: str, *, dtype: torch.dtype, revision: str | None, seed: int) -> BaseWeights:
    """Find what `load_transformer` loads, and read no tensor yet; raises as it does. Only drawn ones have ``dtype``."""
    if pretrained.startswith(RANDOM_PREFIX):
        config = random_config(pretrained)
        return BaseWeights(RandomState(config, dtype, seed), config, pretrained)
    file = Path(pretrained).expanduser()
    if file.is_file():
        state = to_diffusers_state(_read_file(file), file)
        return BaseWeights(state, infer_config(state, config_beside(file)), file.name)
    found = resolve_folder(pretrained, revision=revision, parts=("transformer", "vae/config.json"))
    folder = transformer_folder(found.path)
    config, state = read_config(folder / "config.json"), read_safetensors(folder)
    in_diffusers_format = config.get("_class_name") == DIFFUSERS_CLASS
    if not in_diffusers_format:
        state = to_diffusers_state(state, folder)
        config = infer_config(state, config)
    return BaseWeights(
        state=state,
        config=config,
        name=found.name if found.revision or found.name == TOY else _pipeline(folder).resolve().name,
        revision=found.revision,
        temporal_factor=temporal_factor_of(folder),
        folder=folder if in_diffusers_format else None,
    )


def transformer_folder(found: Path) -> Path:
    """Return where the transformer lies in a pipeline's folder, or the folder itself where it is a transformer's."""
    return found / "transformer" if (found / "transformer").is_dir() else found


def _pipeline(folder: Path) -> Path:
    return folder.parent if folder.name == "transformer" else folder


def temporal_factor_of(folder: Path) -> int:
    """Return the pixel frames per latent frame by the VAE beside a transformer's folder, Wan's where there is none."""
    config = _pipeline(folder) / "vae" / "config.json"
    vae = read_config(config) if config.is_file() else {}
    return int(vae.get("scale_factor_temporal", WAN_TEMPORAL_FACTOR))


def config_beside(file: Path) -> Mapping[str, Any]:
    """Return the config.json beside a single file, empty where there is none."""
    beside = file.with_name("config.json")
    return read_config(beside) if beside.is_file() else {}


def _load_diffusers(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import WanVACETransformer3DModel

    with torch.random.fork_rng(devices=[]):  # diffusers draws what it then overwrites
        module, info = WanVACETransformer3DModel.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    faults = [f"{kind} {name}" for kind in ("missing", "unexpected") for name in info[f"{kind}_keys"]]
    if faults:
        raise ValueError(f"the weights in {folder} do not fit their config.json: {'; '.join(sorted(faults))}")
    return module.requires_grad_(False).eval()


def _read_file(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if file.suffix != ".safetensors":
        raise ValueError(
            f"a single file must be .safetensors, got {file.name}; pickles (.pth, .ckpt, .bin) are not read"
        )
    state: dict[str, Tensor] = load_file(file)
    return state


def to_diffusers_state(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return weights of ComfyUI's, the original or diffusers' names under the last.

    Raises:
        ValueError: They are no Wan VACE's; ``source`` is named.
    """
    state = {name.removeprefix(_COMFYUI_PREFIX): tensor for name, tensor in state.items()}
    if "vace_patch_embedding.weight" not in state:
        raise ValueError(
            f"{source} holds no VACE blocks; expected Wan2.1-VACE weights under original or diffusers' names"
        )
    if "condition_embedder.time_proj.weight" not in state:
        names = to_diffusers_names(state)
        state = {names[name]: tensor for name, tensor in state.items()}
    return state


def infer_config(state: Mapping[str, Tensor], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Read the transformer's config from the shapes of its tensors.

    Args:
        state: Weights under diffusers' names.
        beside: The config.json beside the file, in diffusers' or the original format, or empty. It is asked for what
            shapes do not tell: the number of heads (else of width 128, as in every Wan) and the VACE layers (else
            evenly spread).
    """
    shape = {name: tuple(tensor.shape) for name, tensor in state.items()}
    dim, in_channels, *patch_size = shape["patch_embedding.weight"]
    layers, vace_blocks = (_count_blocks(state, prefix) for prefix in ("blocks", "vace_blocks"))
    heads = int(beside.get("num_attention_heads", beside.get("num_heads", max(1, dim // 128))))
    patch_volume = patch_size[0] * patch_size[1] * patch_size[2]
    return {
        "patch_size": tuple(patch_size),
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": in_channels,
        "out_channels": shape["proj_out.weight"][0] // patch_volume,
        "text_dim": shape["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shape["condition_embedder.time_embedder.linear_1.weight"][1],
        "ffn_dim": shape["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": layers,
        "cross_attn_norm": "blocks.0.norm2.weight" in shape,
        "eps": float(beside.get("eps", 1e-6)),
        "vace_layers": list(beside.get("vace_layers") or range(0, layers, layers // vace_blocks)),
        "vace_in_channels": shape["vace_patch_embedding.weight"][1],
    }


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({match[1] for name in state if (match := re.match(rf"{prefix}\.(\d+)\.", name))})
