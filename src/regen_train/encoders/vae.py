"""The Wan VAE: uint8 video to normalised latents and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.encoders.context import fold_mask
from regen_train.pretrained import (
    DTYPES,
    Precision,
    PretrainedFolder,
    read_config,
    read_safetensors,
    resolve_folder,
    state_sha256,
)
from regen_train.schema import Bucket, ConditionLatents, Geometry

# diffusers' AutoencoderKLWan encodes chunks of this many frames whatever its config says.
_CHUNK_FRAMES = 4


class WanVae:
    """Encodes and decodes whole clips, one at a time; what it returns lies on the CPU.

    The VAE is causal in time and works in chunks of 4 frames that hand a cache of 2 frames per convolution to the
    next, so that memory hardly grows with the clip. For Wan 2.1's VAE in fp32 and 81 frames of 480x832 the tensors
    alive at once peak at 5.6 GiB in encoding and 7.6 GiB in decoding (9 frames: 5.3 and 7.3; 720x1280: 13 and 17.6),
    beside 0.5 GiB of weights and what cuDNN borrows. With tiling it is 1.2 and 1.7 GiB.

    Args:
        module: diffusers' ``AutoencoderKLWan``, on its device.
        source: The pipeline folder it came from.
        geometry: The factors.
        tiling: Whether space is tiled too: less memory, another result at the seams.
    """

    def __init__(self, module: Any, source: PretrainedFolder, geometry: Geometry, *, tiling: bool) -> None:
        self.module = module
        self.source = source
        self.geometry = geometry
        self.tiling = tiling

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights as stored, in fp32: latents depend on every bit of them."""
        return state_sha256(read_safetensors(self.source.path / "vae"), dtype=torch.float32)

    def encode_video(self, frames: UInt8[Tensor, "t H W 3"]) -> Float[Tensor, "c f h w"]:
        """Encode a clip: the mode of the posterior, normalised by the VAE's own statistics, in fp32.

        Raises:
            ValueError: Frames are not 4n+1, or height or width no multiple of what the model needs.
        """
        self.geometry.check(Bucket(*frames.shape[:3]))
        return self._encode(_to_pixels(frames))

    def encode_condition(
        self, frames: UInt8[Tensor, "t H W 3"], vace_mask: Bool[Tensor, "t H W"] | None = None
    ) -> ConditionLatents:
        """Encode a condition video.

        Args:
            frames: The condition video.
            vace_mask: True where the model is to repaint; None for everywhere, where only the reactive latents are
                not a constant of the bucket.

        Raises:
            ValueError: As `encode_video`.
        """
        if vace_mask is None:
            return ConditionLatents(reactive=self.encode_video(frames))
        self.geometry.check(Bucket(*frames.shape[:3]))
        pixels, repaint = _to_pixels(frames), vace_mask.float()
        return ConditionLatents(
            reactive=self._encode(pixels * repaint),
            inactive=self._encode(pixels * (1 - repaint)),
            mask=fold_mask(vace_mask, self.geometry),
            reference=self._encode(pixels[:, :1]),
        )

    def inactive_constant(self, bucket: Bucket) -> Float[Tensor, "c f h w"]:
        """Return the inactive latents of a bucket where the VACE mask is all ones: those of a video of zeros, gray."""
        self.geometry.check(bucket)
        return self._encode(torch.zeros(3, bucket.num_frames, bucket.height, bucket.width))

    @torch.no_grad()
    def decode_video(self, latents: Float[Tensor, "c f h w"]) -> UInt8[Tensor, "t H W 3"]:
        """Decode normalised latents to a clip."""
        mean, std = self._statistics
        raw = latents.to(self.module.device, torch.float32) * std + mean
        with _deterministic():
            pixels = self.module.decode(raw[None].to(self.module.dtype)).sample[0]
        levels: Tensor = (pixels.float() + 1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return rearrange(levels.cpu(), "c t h w -> t h w c")

    @torch.no_grad()
    def _encode(self, pixels: Float[Tensor, "3 t H W"]) -> Float[Tensor, "c f h w"]:
        mean, std = self._statistics
        with _deterministic():
            posterior = self.module.encode(pixels[None].to(self.module.device, self.module.dtype)).latent_dist
        latents: Tensor = ((posterior.mode()[0].float() - mean) / std).cpu()
        return latents

    @property
    def _statistics(self) -> tuple[Float[Tensor, "c 1 1 1"], Float[Tensor, "c 1 1 1"]]:
        config = self.module.config
        mean, std = torch.tensor([config.latents_mean, config.latents_std], device=self.module.device)
        return rearrange(mean, "c -> c 1 1 1"), rearrange(std, "c -> c 1 1 1")


def load_vae(
    pretrained: str,
    *,
    dtype: Precision = "fp32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tiling: bool = False,
) -> WanVae:
    """Load a pipeline's VAE alone; all that previews need.

    Args:
        pretrained: A diffusers pipeline folder or a hub id.
        dtype: Precision; Wan's VAE is meant to run in fp32.
        device: Where it runs.
        revision: Branch, tag or commit on the hub.
        tiling: Encode and decode in overlapping tiles of 256 pixels, for GPUs with little memory; slower, and another
            result at the seams.

    Raises:
        FileNotFoundError: There is no such pipeline; says what to do.
        ValueError: Its configs do not belong together; lists all faults.
    """
    from diffusers import AutoencoderKLWan

    source = resolve_folder(pretrained, revision=revision, parts=("vae", "transformer/config.json"))
    read_config(source.path / "vae" / "config.json")
    module = AutoencoderKLWan.from_pretrained(
        source.path, subfolder="vae", torch_dtype=DTYPES[dtype], use_safetensors=True, local_files_only=True
    )
    transformer = read_config(source.path / "transformer" / "config.json")
    geometry = _geometry(module.config, transformer)
    module = module.to(device).eval().requires_grad_(False)
    if tiling:
        module.enable_tiling()
    return WanVae(module, source, geometry, tiling=tiling)


def _geometry(vae: Any, transformer: dict[str, Any]) -> Geometry:
    # From the VAE's structure: configs of older versions do not state their factors.
    spatial = 2 ** (len(vae.dim_mult) - 1) * (vae.patch_size or 1)
    temporal = 2 ** sum(vae.temperal_downsample)
    geometry = Geometry(
        latent_channels=vae.z_dim,
        spatial_factor=spatial,
        temporal_factor=temporal,
        patch_size=tuple(transformer["patch_size"]),
        text_dim=transformer["text_dim"],
    )
    expected = (
        ("the VAE's temporal factor", temporal, _CHUNK_FRAMES),
        ("the VAE's scale_factor_spatial", vae.scale_factor_spatial, spatial),
        ("the VAE's scale_factor_temporal", vae.scale_factor_temporal, temporal),
        ("the transformer's in_channels", transformer["in_channels"], geometry.latent_channels),
        ("the transformer's vace_in_channels", transformer["vace_in_channels"], geometry.context_channels),
    )
    faults = [f"{name} must be {wanted}, got {got}" for name, got, wanted in expected if got != wanted]
    if faults:
        raise ValueError(f"VAE and transformer do not belong together: {'; '.join(faults)}")
    return geometry


def _to_pixels(frames: UInt8[Tensor, "t H W 3"]) -> Float[Tensor, "3 t H W"]:
    """Map 0..255 to -1..1, in the order of operations of diffusers' video processor."""
    return 2 * (rearrange(frames, "t h w c -> c t h w").float() / 255) - 1


@contextmanager
def _deterministic() -> Iterator[None]:
    """Have cuDNN choose the same algorithm every time: one clip, one set of latents."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
