"""A complete Wan VACE pipeline of a few megabytes with random weights, built in seconds without a network.

It computes nothing that looks like a video, but every part has the form of the real one, so that the path from clip to
export can be run anywhere, and `WanVACEPipeline.from_pretrained` loads it.
"""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.model.random_init import random_config, random_transformer

_TEXT_DIM = 32
_MAX_TOKENS = 512
_WORDS = "a an the and in on of with to is person man woman people street road wearing shirt video camera"


@dataclass(frozen=True)
class _Variant:
    """The parts in which the tiny pipelines differ."""

    vae: dict[str, Any]
    transformer: dict[str, Any]


_VARIANTS = {
    "standard": _Variant(
        vae={"z_dim": 16, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]},
        transformer={},
    ),
    # Half of the spatial factor of 8 comes from folding pixels before the first layer, as in Wan 2.2's VAE.
    "z32": _Variant(
        vae={
            "z_dim": 32,
            "dim_mult": [1, 2, 3],
            "temperal_downsample": [True, True],
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
        },
        transformer={"in_channels": 32, "out_channels": 32, "vace_in_channels": 128},
    ),
}


def build_tiny_wan_vace(folder: str | Path, *, seed: int = 0, variant: Literal["standard", "z32"] = "standard") -> Path:
    """Write a tiny random Wan VACE pipeline in diffusers' layout.

    Args:
        folder: Where to; made if need be.
        seed: Same seed and library versions, same bytes.
        variant: ``standard`` = channels and factors of Wan 2.1; ``z32`` = 32 latent and 128 context channels.

    Returns:
        The folder.
    """
    from diffusers import UniPCMultistepScheduler, WanVACEPipeline

    form = _VARIANTS[variant]
    # Layers draw their start from the global generator; the caller's is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vae, text_encoder = _vae(form.vae), _text_encoder()
    config = random_config("random:tiny") | form.transformer
    pipeline = WanVACEPipeline(
        tokenizer=_tokenizer(),
        text_encoder=text_encoder,
        vae=vae,
        # As the conversion of the released weights has it.
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=random_transformer(config, dtype=torch.float32, seed=seed),
    )
    pipeline.save_pretrained(folder)
    return Path(folder)


def _vae(config: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(base_dim=8, num_res_blocks=1, scale_factor_temporal=4, scale_factor_spatial=8, **config)
    vae.eval().requires_grad_(False)
    latents = vae.encode(_noise_video()).latent_dist.mode()
    # Rounded, so that the last digits of a machine's convolutions do not reach the file.
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
    vae.register_to_config(latents_mean=_rounded(mean), latents_std=_rounded(std))
    return vae


def _noise_video() -> Float[Tensor, "1 3 t h w"]:
    coarse = torch.rand(1, 3, 3, 8, 8)
    return 2 * torch.nn.functional.interpolate(coarse, size=(9, 64, 64), mode="trilinear") - 1


def _rounded(values: Float[Tensor, " c"]) -> list[float]:
    return [float(f"{value:.3g}") for value in values.tolist()]


def _text_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=len(_vocabulary()), d_model=_TEXT_DIM, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False
    )
    return UMT5EncoderModel(config).eval()


def _tokenizer() -> Any:
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_vocabulary(), extra_ids=0, model_max_length=_MAX_TOKENS)


def _vocabulary() -> list[tuple[str, float]]:
    """Return pieces and their scores: T5's special tokens, a few whole words, and every printable ASCII character."""
    words = [f"▁{word}" for word in _WORDS.split()]
    characters = [*string.ascii_letters, *string.digits, *string.punctuation]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return [*special, *((word, -1.0) for word in words), *((character, -3.0) for character in characters)]
