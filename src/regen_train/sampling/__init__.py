"""Sample a video's latents from a condition: guided velocity and diffusers' solvers; no Lightning."""

from regen_train.sampling.caching import check_cache
from regen_train.sampling.generating import generate
from regen_train.sampling.settings import FAST, SamplingSettings, StepCache

__all__ = ["FAST", "SamplingSettings", "StepCache", "check_cache", "generate"]
