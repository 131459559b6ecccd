"""Samples become a batch: one copy from the mapped shard into each of the batch's tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.encoders import pad_prompts
from regen_train.schema import Batch, ConditionLatents, Geometry, Sample
from regen_train.shards import Constants


@dataclass(frozen=True)
class Choice:
    """What was drawn for one sample of a batch.

    Args:
        number: Its place in the stream, or in the held-out set.
        variant: The condition it is given.
        use_reference: Whether the reference frame is put before the clip.
        drop_prompt: Whether it is given the empty prompt.
        weight: 0 for padding, else 1.
    """

    number: int
    variant: str
    use_reference: bool
    drop_prompt: bool = False
    weight: float = 1.0


def collate(
    samples: Sequence[Sample],
    choices: Sequence[Choice],
    constants: Constants,
    geometry: Geometry,
    *,
    pin: bool = False,
) -> Batch:
    """Build a batch of samples of one bucket.

    Args:
        samples: Of one bucket.
        choices: What was drawn for each.
        constants: The dataset's.
        geometry: The dataset's.
        pin: Build it in page-locked memory, for overlapped copies to a GPU.

    Returns:
        Latents, context, reference and prompts in float16, as they lie on disk; coverage and weight in float32.
    """
    bucket, shape = samples[0].bucket, samples[0].latents.shape
    assert all(sample.bucket == bucket for sample in samples), "a batch has one bucket"
    conditions = [sample.conditions[choice.variant] for sample, choice in zip(samples, choices, strict=True)]
    prompts = [
        constants.empty_prompt if choice.drop_prompt else sample.prompt_embeds
        for sample, choice in zip(samples, choices, strict=True)
    ]
    latents = torch.empty((len(samples), *shape), dtype=torch.float16, pin_memory=pin)
    context_shape = (len(samples), geometry.context_channels, *shape[1:])
    context = torch.empty(context_shape, dtype=torch.float16, pin_memory=pin)
    reference = torch.empty((len(samples), shape[0], 1, *shape[2:]), dtype=torch.float16, pin_memory=pin)
    for i, (sample, condition) in enumerate(zip(samples, conditions, strict=True)):
        latents[i] = sample.latents
        reference[i] = condition.reactive[:, :1] if condition.reference is None else condition.reference
        _fill_context(context[i], condition, constants.inactive[bucket])
    prompt_embeds = pad_prompts(prompts)
    coverage = torch.stack([sample.human_coverage for sample in samples]).float().div_(255)
    weight = torch.tensor([choice.weight for choice in choices])
    return Batch(
        keys=tuple(sample.key for sample in samples),
        numbers=tuple(choice.number for choice in choices),
        variants=tuple(choice.variant for choice in choices),
        bucket=bucket,
        latents=latents,
        vace_context=context,
        reference=reference,
        use_reference=torch.tensor([choice.use_reference for choice in choices]),
        human_coverage=coverage.pin_memory() if pin else coverage,
        prompt_embeds=prompt_embeds.pin_memory() if pin else prompt_embeds,
        weight=weight.pin_memory() if pin else weight,
    )


def _fill_context(
    context: Float[Tensor, "k f h w"], condition: ConditionLatents, inactive: Float[Tensor, "c f h w"]
) -> None:
    """Write inactive latents, reactive latents and mask, in the order of the model's channels."""
    c = len(inactive)
    context[:c] = inactive if condition.inactive is None else condition.inactive
    context[c : 2 * c] = condition.reactive
    context[2 * c :] = 1 if condition.mask is None else condition.mask
