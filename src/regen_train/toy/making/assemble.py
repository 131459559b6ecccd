"""Put the toy's parts together as a diffusers pipeline, its transformer still random."""

from pathlib import Path
from typing import Any

import torch

from regen_train.model.random_init import random_transformer
from regen_train.toy.making.text import TEXT_DIM
from regen_train.toy.making.vae import VAE_CONFIG

_Z = VAE_CONFIG["z_dim"]
TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": (1, 1, 1),
    "in_channels": _Z,
    "out_channels": _Z,
    "vace_in_channels": 2 * _Z + VAE_CONFIG["scale_factor_spatial"] ** 2,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "text_dim": TEXT_DIM,
    "freq_dim": 64,
    "ffn_dim": 384,
    "num_layers": 4,
    "vace_layers": [0, 2],
}
_SHARP_KEYS = 3.0
"""Starting scale of the keys of words: most of the 512 are padding, against which the few real ones must be heard."""


def assemble_pipeline(folder: Path, *, seed: int) -> None:
    """Add scheduler, a random transformer and the pipeline's index to a folder with VAE, tokenizer and text encoder.

    Args:
        folder: Of the pipeline.
        seed: Of the transformer's weights.
    """
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanVACEPipeline
    from transformers import AutoTokenizer, UMT5EncoderModel

    transformer = random_transformer(TRANSFORMER_CONFIG, dtype=torch.float32, seed=seed)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if name.endswith("attn2.norm_k.weight"):
                weight.fill_(_SHARP_KEYS)
    pipeline = WanVACEPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(folder / "text_encoder"),
        vae=AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float16),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)
