"""All that turns video and text into what the transformer reads."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.encoders.text import WanTextEncoder
from regen_train.encoders.vae import WanVae, load_vae
from regen_train.pretrained import Precision, resolve_folder
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket, ConditionLatents, Geometry


class WanEncoders:
    """VAE and text encoder of one pipeline.

    Args:
        vae: The VAE.
        text: The text encoder; its weights are loaded on first use.
        vae_dtype: Precision of the VAE, for the fingerprint.
    """

    def __init__(self, vae: WanVae, text: WanTextEncoder, *, vae_dtype: Precision) -> None:
        self.vae = vae
        self.text = text
        self._vae_dtype = vae_dtype

    @property
    def geometry(self) -> Geometry:
        """How VAE and transformer fold pixels."""
        return self.vae.geometry

    @property
    def name(self) -> str:
        """Hub id or folder name."""
        return self.vae.source.name

    @property
    def revision(self) -> str | None:
        """Commit on the hub, else None."""
        return self.vae.source.revision

    def fingerprint(self) -> dict[str, str]:
        """Return all that latents and prompt embeddings depend on, by content, so that copies of one model agree."""
        return {
            "vae_sha256": self.vae.sha256,
            "vae_dtype": self._vae_dtype,
            "vae_tiling": str(self.vae.tiling).lower(),
            "text_encoder_sha256": self.text.sha256,
            "text_encoder_dtype": self.text.dtype,
            "max_prompt_tokens": str(MAX_PROMPT_TOKENS),
        }

    def encode_video(self, frames: UInt8[Tensor, "t H W 3"]) -> Float[Tensor, "c f h w"]:
        """Encode a clip; see `WanVae.encode_video`."""
        return self.vae.encode_video(frames)

    def encode_condition(
        self, frames: UInt8[Tensor, "t H W 3"], vace_mask: Bool[Tensor, "t H W"] | None = None
    ) -> ConditionLatents:
        """Encode a condition video; see `WanVae.encode_condition`."""
        return self.vae.encode_condition(frames, vace_mask)

    def inactive_constant(self, bucket: Bucket) -> Float[Tensor, "c f h w"]:
        """Return a bucket's inactive latents for all-ones masks; see `WanVae.inactive_constant`."""
        return self.vae.inactive_constant(bucket)

    def decode_video(self, latents: Float[Tensor, "c f h w"]) -> UInt8[Tensor, "t H W 3"]:
        """Decode latents; see `WanVae.decode_video`."""
        return self.vae.decode_video(latents)

    def encode_prompts(self, prompts: Sequence[str]) -> list[Float[Tensor, "_ d"]]:
        """Encode prompts, each trimmed to its tokens; see `WanTextEncoder.encode`."""
        return self.text.encode(prompts)


def load_encoders(
    pretrained: str,
    *,
    dtype: Precision = "bf16",
    vae_dtype: Precision = "fp32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tiling: bool = False,
) -> WanEncoders:
    """Load the encoders of a Wan VACE pipeline.

    Args:
        pretrained: A diffusers pipeline folder or a hub id.
        dtype: Precision of the text encoder.
        vae_dtype: Precision of the VAE; Wan's is meant to run in fp32.
        device: Where they run.
        revision: Branch, tag or commit on the hub.
        tiling: Tile the VAE in space; see `load_vae`.

    Raises:
        FileNotFoundError: There is no such pipeline, or parts of it are missing.
        ValueError: Its configs do not belong together.
    """
    parts = ("vae", "text_encoder", "tokenizer", "transformer/config.json")
    source = resolve_folder(pretrained, revision=revision, parts=parts)
    text = WanTextEncoder(source, dtype=dtype, device=device)
    vae = load_vae(pretrained, dtype=vae_dtype, device=device, revision=revision, tiling=tiling)
    return WanEncoders(vae, text, vae_dtype=vae_dtype)
