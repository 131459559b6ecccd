"""Condition videos in, videos with other people out: a Wan VACE with its LoRA and its encoders on one device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.adapter import Adapter, find_adapter, load_adapter
from regen_train.draws import generator_for
from regen_train.encoders import WanEncoders, fold_mask, load_encoders, pack_context, pad_prompts
from regen_train.model import BlockOptions, LoraSpec, WanVace, load_wan_vace
from regen_train.pretrained import Precision
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Bucket, ConditionLatents, Geometry

Reference = Literal["first_condition", "none"]
Progress = Callable[[int, int], None]

_DEFAULT_SETTINGS = SamplingSettings()
_PLAIN_BLOCKS = BlockOptions()


@dataclass(frozen=True)
class Painting:
    """What is to be painted.

    Args:
        condition: The condition video, from `regen_train.conditions` or `regen_train.preparation`.
        caption: What the video shall show.
        seed: Of the noise it starts from; the painting depends on no other one of its batch.
        vace_mask: True where VACE is to repaint; None for everywhere, as in training unless a dataset was prepared with
            ``vace_mask: human``.
    """

    condition: UInt8[Tensor, "t h w 3"]
    caption: str
    seed: int
    vace_mask: Bool[Tensor, "t h w"] | None = None

    @property
    def bucket(self) -> Bucket:
        """The shape of the video."""
        return Bucket(*self.condition.shape[:3])


class Painter:
    """Paints videos from conditions, given to the model as in training.

    Args:
        model: On its device.
        encoders: On the same device. The text encoder is let go of after each use, for it is larger than all else.
        reference: Whether VACE gets the first condition frame as its reference image, as in training.
    """

    def __init__(self, model: WanVace, encoders: WanEncoders, *, reference: Reference = "first_condition") -> None:
        self.model, self.encoders, self.reference = model, encoders, reference
        self._prompts: dict[str, Tensor] = {}
        self._inactive: dict[Bucket, Tensor] = {}

    @property
    def geometry(self) -> Geometry:
        """How the model folds pixels."""
        return self.encoders.geometry

    def paint(
        self,
        paintings: Sequence[Painting],
        *,
        settings: SamplingSettings = _DEFAULT_SETTINGS,
        negative_prompt: str = "",
        batch_size: int = 1,
        progress: Progress | None = None,
    ) -> list[UInt8[Tensor, "t h w 3"]]:
        """Paint videos of one shape.

        Args:
            paintings: What to paint.
            settings: Solver, steps and guidance.
            negative_prompt: What no video shall show; used where guidance is above 1.
            batch_size: How many are sampled at once; changes memory and speed, and the videos by rounding only.
            progress: Called after every step of every batch with the steps done and those to do in all.

        Returns:
            The videos, on the CPU, in the order of ``paintings``.

        Raises:
            ValueError: Videos of different shapes, a shape that the model cannot take, or no positive batch size.
        """
        self._check(paintings, batch_size)
        self._encode_prompts([*(painting.caption for painting in paintings), negative_prompt])
        batches = [paintings[start : start + batch_size] for start in range(0, len(paintings), batch_size)]
        videos: list[Tensor] = []
        for number, batch in enumerate(batches):
            report = None if progress is None else _counted(progress, number, len(batches))
            latents = self._sample(batch, settings, negative_prompt, report)
            videos += [self.encoders.decode_video(clip) for clip in latents]
        return videos

    def _sample(
        self, batch: Sequence[Painting], settings: SamplingSettings, negative_prompt: str, progress: Progress | None
    ) -> Float[Tensor, "b c f h w"]:
        conditions = [self.encoders.encode_condition(p.condition, p.vace_mask) for p in batch]
        buckets = [painting.bucket for painting in batch]
        references = [c.reactive[:, :1] if c.reference is None else c.reference for c in conditions]
        guided = settings.guidance_scale > 1
        return generate(
            self.model,
            vace_context=torch.cat([self._context(c, b) for c, b in zip(conditions, buckets, strict=True)]),
            prompt_embeds=pad_prompts([self._prompts[painting.caption] for painting in batch]),
            negative_prompt_embeds=(
                repeat(self._prompts[negative_prompt], "l d -> b l d", b=len(batch)) if guided else None
            ),
            reference=torch.stack(references) if self.reference == "first_condition" else None,
            noise=torch.stack([self._noise(painting) for painting in batch]),
            settings=settings,
            progress=progress,
        )

    def _context(self, condition: ConditionLatents, bucket: Bucket) -> Float[Tensor, "1 k f h w"]:
        inactive, mask = condition.inactive, condition.mask
        if inactive is None:
            if bucket not in self._inactive:
                self._inactive[bucket] = self.encoders.inactive_constant(bucket)
            inactive = self._inactive[bucket]
        if mask is None:
            everywhere = torch.ones(bucket.num_frames, bucket.height, bucket.width, dtype=torch.bool)
            mask = fold_mask(everywhere, self.geometry)
        return pack_context(condition.reactive[None], inactive[None], mask[None])

    def _noise(self, painting: Painting) -> Float[Tensor, "c g h w"]:
        """Draw what `generate` would draw from the seed for this clip alone."""
        channels, frames, height, width = self.geometry.latent_shape(painting.bucket)
        shape = (channels, frames + int(self.reference == "first_condition"), height, width)
        return torch.randn(shape, generator=generator_for(painting.seed, 0, "sampling_noise"))

    def _encode_prompts(self, prompts: Sequence[str]) -> None:
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
        if missing:
            self._prompts |= dict(zip(missing, self.encoders.encode_prompts(missing), strict=True))
            self.encoders.text.release()

    def _check(self, paintings: Sequence[Painting], batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        buckets = {painting.bucket for painting in paintings}
        if len(buckets) > 1:
            raise ValueError(f"paintings of one call must share a shape, got {', '.join(map(str, sorted(buckets)))}")
        for bucket in buckets:
            self.geometry.check(bucket)


def load_painter(
    pretrained: str,
    lora: str | None,
    *,
    dtype: Precision = "bf16",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tiling: bool = False,
    reference: Reference | None = None,
    blocks: BlockOptions = _PLAIN_BLOCKS,
) -> Painter:
    """Load a model, the LoRA on it and its encoders.

    Args:
        pretrained: A diffusers pipeline folder or a hub id.
        lora: A LoRA file, or a folder that `regen_train export` wrote; None for the model as it is.
        dtype: Precision of the transformer and the text encoder; the VAE runs in fp32.
        device: Where all of it runs.
        revision: Branch, tag or commit on the hub.
        tiling: Have the VAE work in tiles, for GPUs with little memory.
        reference: Whether VACE gets the first condition frame as its reference image; None asks the LoRA how it was
            trained, and takes the first condition frame where it does not say.
        blocks: Whether the transformer's blocks are compiled, quantized or swapped.

    Raises:
        FileNotFoundError: There is no such model or LoRA.
        ValueError: The LoRA does not fit the model, or was trained on another base.
        ImportError: A quantization needs a package that is not installed.
    """
    adapter = None if lora is None else load_adapter(lora)
    encoders = load_encoders(pretrained, dtype=dtype, device=device, revision=revision, tiling=tiling)
    model = load_model(pretrained, lora, dtype=dtype, device=device, revision=revision, adapter=adapter, blocks=blocks)
    return Painter(model, encoders, reference=trained_reference(adapter) if reference is None else reference)


def load_model(
    pretrained: str,
    lora: str | None,
    *,
    dtype: Precision,
    device: str | torch.device,
    revision: str | None = None,
    adapter: Adapter | None = None,
    blocks: BlockOptions = _PLAIN_BLOCKS,
) -> WanVace:
    """Load the transformer with the LoRA on it; arguments and errors as in `load_painter`.

    Here ``adapter`` is what `load_adapter` read from ``lora``; None reads it.
    """
    spec = None if lora is None else _lora_spec(adapter or load_adapter(lora), find_adapter(Path(lora)))
    return load_wan_vace(pretrained, dtype=dtype, lora=spec, revision=revision, blocks=blocks).to(device).eval()


def trained_reference(adapter: Adapter | None) -> Reference:
    """Return how VACE's reference was used where the LoRA was trained; the first condition frame if it is unknown."""
    stated = None if adapter is None or adapter.metadata is None else adapter.metadata.settings.get("reference")
    return "none" if stated == "none" else "first_condition"


def _lora_spec(adapter: Adapter, file: Path) -> LoraSpec:
    return LoraSpec(
        rank=adapter.rank,
        alpha=adapter.alpha,
        targets="all" if adapter.targets == "all" else "attn+ffn",
        init=str(file),
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
    )


def _counted(progress: Progress, batch: int, batches: int) -> Progress:
    return lambda step, steps: progress(batch * steps + step, batches * steps)
