"""How a video is sampled: solver, steps, guidance, and what of a step is computed at all."""

from dataclasses import dataclass, field
from typing import Literal

_DEFAULT_SHIFT = {"euler": 5.0, "unipc": 3.0}
CachedPart = Literal["none", "attention", "velocity"]
_PARTS = ("none", "attention", "velocity")


@dataclass(frozen=True)
class StepCache:
    """What of a step is predicted from the steps before it, as a straight line through the last two computed ones.

    Approximate, and off unless asked for. Source: Liu et al. 2025, arXiv 2503.06923 (TaylorSeer), as diffusers has it.

    Args:
        part: ``none``; ``attention`` = the self-attention of every block, which takes most of the time of a long clip
            and here two hidden states of memory a block; ``velocity`` = the whole step, at no cost of memory.
        interval: One step of so many is computed.
        warmup: The first steps, which decide what the video shows, are all computed.
    """

    part: CachedPart = "none"
    interval: int = 2
    warmup: int = 4

    def __post_init__(self) -> None:
        faults = []
        if self.part not in _PARTS:
            faults.append(f"cache.part must be one of {', '.join(_PARTS)}, got {self.part!r}")
        if self.interval < 1:
            faults.append(f"cache.interval must be at least 1, got {self.interval}")
        if self.warmup < 2:
            faults.append(f"cache.warmup must be at least 2, from which a line can be drawn, got {self.warmup}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class SamplingSettings:
    """How a video is sampled. The defaults are those of the paper's release, which samples through DiffSynth-Studio.

    Args:
        guidance_scale: Weight of the prompt against the negative prompt, at least 1; 1 leaves guidance out.
        num_inference_steps: Steps of the solver.
        solver: ``euler``, or ``unipc`` as in diffusers' conversion of Wan VACE.
        flow_shift: Shift of the noise levels towards noise; null means 5 for ``euler`` and 3 for ``unipc``.
        conditioning_scale: Strength of the VACE hints: one number, or one per VACE block.
        guidance_interval: Noise levels [low, high] at which there is guidance; outside it a step costs half. Null
            guides always. Source: Kynkäänniemi et al. 2024, arXiv 2404.07724.
        batched_guidance: Evaluate prompt and negative prompt in one batch: faster on small clips, twice the memory.
        cache: What of a step is predicted instead of computed.
    """

    guidance_scale: float = 5.0
    num_inference_steps: int = 50
    solver: Literal["euler", "unipc"] = "euler"
    flow_shift: float | None = None
    conditioning_scale: float | list[float] = 1.0
    batched_guidance: bool = True
    guidance_interval: tuple[float, float] | None = None
    cache: StepCache = field(default_factory=StepCache)

    def __post_init__(self) -> None:
        faults = []
        if not self.guidance_scale >= 1:
            faults.append(f"guidance_scale must be at least 1, got {self.guidance_scale}")
        if self.num_inference_steps < 1:
            faults.append(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
        if self.solver not in _DEFAULT_SHIFT:
            faults.append(f"solver must be one of {', '.join(_DEFAULT_SHIFT)}, got {self.solver!r}")
        if self.flow_shift is not None and not self.flow_shift > 0:
            faults.append(f"flow_shift must be positive or null, got {self.flow_shift}")
        if self.guidance_interval is not None and not 0 <= self.guidance_interval[0] <= self.guidance_interval[1] <= 1:
            faults.append(f"guidance_interval must be [low, high] within [0, 1], got {list(self.guidance_interval)}")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def effective_shift(self) -> float:
        """``flow_shift``, or the solver's usual one where it is left open."""
        return _DEFAULT_SHIFT[self.solver] if self.flow_shift is None else self.flow_shift

    def guides(self, sigma: float) -> bool:
        """Return whether there is guidance at a noise level."""
        if self.guidance_scale == 1:
            return False
        low, high = (0.0, 1.0) if self.guidance_interval is None else self.guidance_interval
        return low <= sigma <= high


FAST = SamplingSettings(cache=StepCache("velocity", interval=3, warmup=8))
"""The release's settings, with 22 of 50 steps computed: more than twice as fast, and not to be told apart on the toy
(see ``benchmarks/``)."""
