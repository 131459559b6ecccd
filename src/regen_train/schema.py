"""What a sample, a batch and a dataset are. Every other file speaks in these words."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

SCHEMA_VERSION = 1
MAX_PROMPT_TOKENS = 512
UNKNOWN_TRACK = 255
"""In a mask: a person without a track id."""


@dataclass(frozen=True, order=True)
class Bucket:
    """The shape of a clip in pixels; all samples of a batch share it.

    Args:
        num_frames: Pixel frames; 4n+1 for Wan.
        height: Pixels.
        width: Pixels.
    """

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """Read ``"49x480x832"``.

        Raises:
            ValueError: The text is not three positive integers joined by ``x``.
        """
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise ValueError(f"a bucket is FRAMESxHEIGHTxWIDTH, such as 49x480x832; got {text!r}")
        return cls(*map(int, parts))


@dataclass(frozen=True)
class Geometry:
    """How a VAE and a transformer fold pixels; always read from their configs.

    Args:
        latent_channels: Channels of a latent (16 for Wan 2.1).
        spatial_factor: Pixels per latent cell along height and width (8 for Wan 2.1).
        temporal_factor: Pixel frames per latent frame after the first (4 for Wan 2.1).
        patch_size: Latent cells per token along frames, height and width ((1, 2, 2) for Wan 2.1).
        text_dim: Width of the prompt embeddings (4096 for UMT5-XXL).
    """

    latent_channels: int
    spatial_factor: int
    temporal_factor: int
    patch_size: tuple[int, int, int]
    text_dim: int

    @property
    def mask_channels(self) -> int:
        """Channels of the folded mask: one per pixel of a latent cell."""
        return self.spatial_factor**2

    @property
    def context_channels(self) -> int:
        """Channels of the VACE context: inactive and reactive latents, folded mask (96 for Wan 2.1)."""
        return 2 * self.latent_channels + self.mask_channels

    @property
    def size_multiple(self) -> tuple[int, int]:
        """What height and width must be multiples of, in pixels."""
        return self.spatial_factor * self.patch_size[1], self.spatial_factor * self.patch_size[2]

    def latent_shape(self, bucket: Bucket) -> tuple[int, int, int, int]:
        """Return [c, f, h, w] of a clip's latents.

        Raises:
            ValueError: The bucket does not fit the geometry; names each fault and the nearest values that fit.
        """
        self.check(bucket)
        frames = (bucket.num_frames - 1) // self.temporal_factor + 1
        return (self.latent_channels, frames, bucket.height // self.spatial_factor, bucket.width // self.spatial_factor)

    def num_tokens(self, bucket: Bucket, *, reference: bool) -> int:
        """Return the transformer's sequence length for a clip, the reference frame included if asked for."""
        _, frames, height, width = self.latent_shape(bucket)
        cells = (frames + int(reference)) * height * width
        return cells // math.prod(self.patch_size)

    def check(self, bucket: Bucket) -> None:
        """Raise ValueError, naming all faults at once, unless the bucket fits."""
        faults = []
        step = self.temporal_factor
        if (bucket.num_frames - 1) % step:
            low = (bucket.num_frames - 1) // step * step + 1
            faults.append(f"num_frames must be {step}n+1, got {bucket.num_frames}; nearest are {low} and {low + step}")
        for name, value, multiple in zip(
            ("height", "width"), (bucket.height, bucket.width), self.size_multiple, strict=True
        ):
            if value % multiple:
                low = value // multiple * multiple
                near = f"{low} and {low + multiple}" if low else f"{multiple}"
                faults.append(f"{name} must be a multiple of {multiple}, got {value}; nearest: {near}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class ConditionLatents:
    """One condition video as the VAE sees it; normalised latents [c, f, h, w].

    Args:
        reactive: What the model is asked to repaint: the condition video under the VACE mask.
        inactive: What stands outside the VACE mask; None for the all-ones mask, where it is a constant of the bucket.
        mask: The folded VACE mask [k, f, h, w]; None for the all-ones mask.
        reference: Latent of the first condition frame [c, 1, h, w]; None for the all-ones mask, where the causal VAE
            makes it equal to ``reactive[:, :1]``.
    """

    reactive: Float[Tensor, "c f h w"]
    inactive: Float[Tensor, "c f h w"] | None = None
    mask: Bool[Tensor, "k f h w"] | None = None
    reference: Float[Tensor, "c 1 h w"] | None = None

    def __post_init__(self) -> None:
        extras = (self.inactive, self.mask, self.reference)
        if any(extra is None for extra in extras) and any(extra is not None for extra in extras):
            raise ValueError("inactive, mask and reference come together or not at all")


@dataclass(frozen=True)
class Sample:
    """One training clip, encoded. Never a pixel, never a file name.

    Args:
        key: Salted hash; names the sample inside its dataset.
        bucket: The clip's shape in pixels.
        latents: Normalised latents of the real clip.
        conditions: Condition name to its latents.
        human_coverage: Share of human pixels per latent cell, 0 to 255.
        prompt_embeds: Caption embedding, trimmed to its tokens.
        info: What lies in the sample's json: schema version, fps, guard report, fingerprints.
    """

    key: str
    bucket: Bucket
    latents: Float[Tensor, "c f h w"]
    conditions: Mapping[str, ConditionLatents]
    human_coverage: UInt8[Tensor, "f h w"]
    prompt_embeds: Float[Tensor, "l d"]
    info: Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """What the trainer gets: one microbatch of one bucket.

    Args:
        keys: The samples' keys.
        numbers: The samples' places in the stream (in validation: in the held-out set).
        variants: The condition each sample was given.
        bucket: The clips' shape in pixels.
        latents: Normalised latents of the real clips, without reference frame.
        vace_context: Inactive and reactive latents and folded mask, without reference frame.
        reference: Latent of each condition's first frame.
        use_reference: Whether the reference frame is put before the clip, per sample. Always on the CPU, for it decides
            what is computed.
        human_coverage: Share of human pixels per latent cell, 0 to 1.
        prompt_embeds: Zero-padded to 512 tokens.
        weight: 0 for samples that only pad the last validation step of a process, else 1.
    """

    keys: tuple[str, ...]
    numbers: tuple[int, ...]
    variants: tuple[str, ...]
    bucket: Bucket
    latents: Float[Tensor, "b c f h w"]
    vace_context: Float[Tensor, "b k f h w"]
    reference: Float[Tensor, "b c 1 h w"]
    use_reference: Bool[Tensor, " b"]
    human_coverage: Float[Tensor, "b f h w"]
    prompt_embeds: Float[Tensor, "b l d"]
    weight: Float[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device, all but ``use_reference``; Lightning calls this."""
        moved = self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return replace(self, **moved)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, for overlapped copies to a GPU."""
        return replace(self, **self._map_tensors(torch.Tensor.pin_memory))

    def select(self, indices: list[int]) -> "Batch":
        """Return the samples at ``indices``, in that order."""
        picked = self._map_tensors(lambda tensor: _pick(tensor, indices))
        picked["use_reference"] = _pick(self.use_reference, indices)
        names: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in indices) for name in ("keys", "numbers", "variants")
        }
        return replace(self, **picked | names)

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return what a function makes of each tensor that goes to the device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "use_reference"}
        return {name: function(value) for name, value in tensors.items() if isinstance(value, Tensor)}


def _pick(tensor: Tensor, indices: list[int]) -> Tensor:
    """Return ``tensor[indices]``, one by one: a GPU is waited for where it is sent a list of indices."""
    picked = tensor.new_empty((len(indices), *tensor.shape[1:]))
    for row, i in zip(picked, indices, strict=True):
        row.copy_(tensor[i])
    return picked
