"""VAE and text encoder of a Wan pipeline on a device; random ones of Wan 2.1's size where no weights can be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regen_train.pretrained import DTYPES, Precision, resolve_folder

PROMPT_TOKENS = 200
"""Of a caption of 120 to 160 words; the encoder computes all 512 places."""

# Source: config.json of the text encoder of Wan-AI/Wan2.1-VACE-1.3B-diffusers (UMT5-XXL).
_UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "use_cache": False,
}


@dataclass(frozen=True)
class OnlineEncoders:
    """What a trainer that encodes at every step keeps beside the transformer.

    Args:
        vae: diffusers' ``AutoencoderKLWan``.
        text: transformers' ``UMT5EncoderModel``.
    """

    vae: Any
    text: Any

    @property
    def num_bytes(self) -> int:
        """Bytes of their weights."""
        return sum(p.nbytes for module in (self.vae, self.text) for p in module.parameters())

    @torch.no_grad()
    def encode_video(self, pixels: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode pixels in [-1, 1] to normalised latents in fp32."""
        config = self.vae.config
        mean, std = torch.tensor([config.latents_mean, config.latents_std], device=pixels.device)
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode().float()
        normalised: Tensor = (latents - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
        return normalised

    @torch.no_grad()
    def encode_prompts(self, ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Encode padded prompts; zeros past the last token, as Wan's pipeline has it."""
        hidden: Tensor = self.text(ids, attention_mask=mask).last_hidden_state
        return hidden.float() * mask[..., None]


def load_online_encoders(pretrained: str, *, dtype: Precision, device: str) -> OnlineEncoders:
    """Load a pipeline's encoders, or make random ones of Wan 2.1's size for a name that starts with ``random:``."""
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    if pretrained.startswith("random:"):
        with torch.random.fork_rng(), torch.device(device), _default_dtype(DTYPES[dtype]):
            torch.manual_seed(0)
            vae, text = AutoencoderKLWan(), UMT5EncoderModel(UMT5Config(**_UMT5_XXL))
    else:
        folder = resolve_folder(pretrained, revision=None, parts=("vae", "text_encoder")).path
        given = {"use_safetensors": True, "local_files_only": True}
        vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=DTYPES[dtype], **given)
        text = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=DTYPES[dtype], **given)
    return OnlineEncoders(*(module.to(device).eval().requires_grad_(False) for module in (vae, text)))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
