"""Video and text to what the transformer reads, and back: VAE, UMT5, the VACE context."""

from regen_train.encoders.context import (
    WithReference,
    add_reference,
    add_reference_context,
    fold_mask,
    pack_context,
    pad_prompts,
)
from regen_train.encoders.text import NEGATIVE_PROMPT, WanTextEncoder
from regen_train.encoders.vae import WanVae, load_vae
from regen_train.encoders.wan import WanEncoders, load_encoders

__all__ = [
    "NEGATIVE_PROMPT",
    "WanEncoders",
    "WanTextEncoder",
    "WanVae",
    "WithReference",
    "add_reference",
    "add_reference_context",
    "fold_mask",
    "load_encoders",
    "load_vae",
    "pack_context",
    "pad_prompts",
]
