"""What a sample is given beside its clip: which condition, the prompt or none, the reference frame or none."""

from collections.abc import Mapping
from dataclasses import dataclass

from regen_train import draws
from regen_train.data.collate import Choice


@dataclass(frozen=True)
class Dropout:
    """How often a training sample goes without a hint; drawn per sample, never in validation.

    Args:
        prompt: Share of samples given the empty prompt, in [0, 1]; the paper trains without.
        reference: Share of samples without reference frame, in [0, 1]; the paper trains without.
    """

    prompt: float = 0.0
    reference: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.prompt), ("reference", self.reference)):
            if not 0 <= value <= 1:
                raise ValueError(f"dropout.{name} must be in [0, 1], got {value}")


@dataclass(frozen=True)
class Variants:
    """Which condition a sample is given: one, or a mix.

    Args:
        shares: Condition name to its share of the samples; they add up to 1.
    """

    shares: Mapping[str, float]

    @classmethod
    def parse(cls, variant: str | Mapping[str, float]) -> "Variants":
        """Read a config's ``structhuman`` or ``{structhuman: 1, structall: 3}``; shares need not add up to 1.

        Raises:
            ValueError: No share is positive, or one is negative.
        """
        shares = {variant: 1.0} if isinstance(variant, str) else {name: float(s) for name, s in variant.items()}
        total = sum(shares.values())
        if not shares or min(shares.values()) < 0 or not 0 < total < float("inf"):
            raise ValueError(f"variant must be a condition, or shares of which at least one is positive; got {variant}")
        return cls({name: share / total for name, share in sorted(shares.items()) if share > 0})

    def __str__(self) -> str:
        if len(self.shares) == 1:
            return next(iter(self.shares))
        return " + ".join(f"{share:.3g} {name}" for name, share in self.shares.items())

    def draw(self, seed: int, sample: int | str) -> str:
        """Return the condition of one sample, keyed by (seed, sample)."""
        names = list(self.shares)
        left = draws.uniform(seed, sample, "variant") if len(names) > 1 else 0.0
        for name in names[:-1]:
            left -= self.shares[name]
            if left < 0:
                return name
        return names[-1]


@dataclass(frozen=True)
class Conditioning:
    """Draws what each sample is given.

    Args:
        variants: The condition, or a mix.
        seed: The run's.
        use_reference: Whether samples get a reference frame at all.
        dropout: How often a training sample goes without a hint.
    """

    variants: Variants
    seed: int
    use_reference: bool
    dropout: Dropout

    def draw(self, number: int) -> Choice:
        """Return what sample ``number`` of the stream is given in training."""
        keeps_reference = draws.uniform(self.seed, number, "reference dropout") >= self.dropout.reference
        return Choice(
            number=number,
            variant=self.variants.draw(self.seed, number),
            use_reference=self.use_reference and keeps_reference,
            drop_prompt=draws.uniform(self.seed, number, "prompt dropout") < self.dropout.prompt,
        )

    def fixed(self, number: int, key: str, *, weight: float) -> Choice:
        """Return what a held-out sample is given in every validation: by its key alone, and nothing dropped."""
        variant = self.variants.draw(self.seed, f"validation {key}")
        return Choice(number=number, variant=variant, use_reference=self.use_reference, weight=weight)
