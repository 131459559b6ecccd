"""What the demo does by default: how much of everything, and the toy's way of preparing and sampling."""

from dataclasses import dataclass
from pathlib import Path

from regen_train.preparation.settings import ConditionName
from regen_train.sampling import SamplingSettings

VARIANTS: tuple[ConditionName, ...] = ("structhuman", "structall")

TOY_SAMPLING = SamplingSettings(solver="euler", num_inference_steps=12, flow_shift=2.0, guidance_scale=2.0)


@dataclass(frozen=True)
class DemoSettings:
    """How much of everything.

    Args:
        pretrained: The model: ``toy``, or a diffusers folder of its form.
        steps: Training steps of each variant.
        num_clips: Clips to train on.
        num_measured: Held-out clips of one person, from which all figures come.
        num_pairs: Held-out clips of two people who cross.
        num_recoloured: Held-out clips of one person that are painted again with one word of the caption changed.
        num_shown: Clips on the page, of one person, of two, and with one word changed.
        seed: Of the worlds and of the noise that paintings start from.
        batch_size: Clips painted at once.
    """

    pretrained: str = "toy"
    steps: int = 200
    num_clips: int = 64
    num_measured: int = 32
    num_pairs: int = 12
    num_recoloured: int = 16
    num_shown: tuple[int, int, int] = (4, 2, 3)
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        least = {"steps": 2, "num_clips": 3, "num_measured": 8, "num_pairs": 1, "num_recoloured": 3, "batch_size": 1}
        faults = [f"{name} must be at least {low}, got {getattr(self, name)}"
                  for name, low in least.items() if getattr(self, name) < low]  # fmt: skip
        if self.num_recoloured > self.num_measured:
            faults.append(f"num_recoloured must be at most num_measured, got {self.num_recoloured}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class DemoFolder:
    """What lies where in the demo's output.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def clips(self) -> Path:
        """Clips to train on, and their signals."""
        return self.path / "clips"

    @property
    def held_out(self) -> Path:
        """Files of clips that are anonymized."""
        return self.path / "held_out"

    @property
    def dataset(self) -> Path:
        """Shards of the clips."""
        return self.path / "dataset"

    @property
    def own(self) -> Path:
        """What is made of the user's own clip."""
        return self.path / "own"

    def run(self, variant: str) -> Path:
        """Return where a variant is trained."""
        return self.path / "run" / variant

    def exported(self, variant: str) -> Path:
        """Return where a variant's weights for other tools lie."""
        return self.path / "exported" / variant
