"""Predict parts of the transformer from earlier steps, through diffusers' hooks.

diffusers' FirstBlockCache and MagCache are left out: they keep what the main blocks add, VACE's hints included, and the
transformer then adds the hints once more to what was kept. Pyramid Attention Broadcast repeats attention where
TaylorSeer extrapolates it, at the same cost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regen_train.model import BlockOptions, WanVace
from regen_train.sampling.settings import StepCache

_SELF_ATTENTION = [r"(?:vace_)?blocks\.\d+\.attn1"]


def check_cache(cache: StepCache, blocks: BlockOptions) -> None:
    """Refuse to predict what lies within compiled blocks, which the hooks cannot reach.

    Args:
        cache: What is to be predicted.
        blocks: What is done to the blocks.

    Raises:
        ValueError: It is a part of compiled blocks; says what can be predicted.
    """
    if cache.part == "attention" and blocks.compile:
        raise ValueError(
            "cache.part attention predicts a part of a block, and blocks.compile compiles blocks whole; take "
            "cache.part velocity or none, or blocks.compile false"
        )


@contextmanager
def predicting(model: WanVace, cache: StepCache) -> Iterator[None]:
    """Have the model predict what the cache says; afterwards it is as it was. Does nothing if that is nothing."""
    if cache.part == "none":
        yield
        return
    check_cache(cache, model.block_options)
    transformer: Any = model.transformer
    forwards = [(module, vars(module).get("forward")) for module in transformer.modules()]
    transformer.enable_cache(_config(model, cache))
    try:
        yield
    finally:
        transformer.disable_cache()
        vars(transformer).pop("_cache_config", None)
        for module, forward in forwards:  # diffusers leaves its registry, and methods that a copy would share
            vars(module).pop("_diffusers_hook", None)
            if forward is None:
                vars(module).pop("forward", None)


@contextmanager
def cached_as(model: WanVace, cache: StepCache, name: str) -> Iterator[None]:
    """Keep the steps of one series apart from those of others, such as of another prompt."""
    if cache.part == "none":
        yield
        return
    transformer: Any = model.transformer
    with transformer.cache_context(name):
        yield


def _config(model: WanVace, cache: StepCache) -> Any:
    from diffusers import TaylorSeerCacheConfig

    return TaylorSeerCacheConfig(
        cache_interval=cache.interval,
        disable_cache_before_step=cache.warmup,
        max_order=1,
        taylor_factors_dtype=model.dtype,
        cache_identifiers=_SELF_ATTENTION if cache.part == "attention" else None,
        use_lite_mode=cache.part == "velocity",  # blocks are skipped, the last projection is predicted
    )
