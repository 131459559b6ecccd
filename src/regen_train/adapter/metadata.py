"""What an adapter file says about itself: our own record and the one diffusers reads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from regen_train import __version__
from regen_train.adapter.names import LORA_TARGETS

ADAPTER_SCHEMA_VERSION: Final = 1
OWN_KEY: Final = "regen_train"
DIFFUSERS_KEY: Final = "lora_adapter_metadata"
DIFFUSERS_PREFIX: Final = "transformer."

_NUMBER = (int, float)
_TEXT_OR_NONE = (str, type(None))
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "base_name": (str,),
    "base_revision": _TEXT_OR_NONE,
    "base_sha256": _TEXT_OR_NONE,
    "rank": (int,),
    "alpha": _NUMBER,
    "targets": (str,),
    "dropout": _NUMBER,
    "use_dora": (bool,),
    "use_rslora": (bool,),
    "dataset_fingerprint": _TEXT_OR_NONE,
    "variant": _TEXT_OR_NONE,
    "step": (int, type(None)),
    "weights": (str,),
    "recipe": (dict,),
    "settings": (dict,),
    "code_version": (str,),
    "schema_version": (int,),
}


@dataclass(frozen=True)
class AdapterMetadata:
    """Where an adapter comes from and how it is to be applied.

    Args:
        base_name: Folder, hub id or file the base was loaded from.
        base_revision: Revision of the hub id, if any.
        base_sha256: Hash of the base's tensors, rounded to bf16, under diffusers' names; None if unknown.
        rank: Columns of every B.
        alpha: The adapter's output is scaled by alpha / rank (rsLoRA: alpha / sqrt(rank)).
        targets: ``attn+ffn`` or ``all``.
        dropout: LoRA dropout it was trained with.
        use_dora: Whether it holds DoRA's magnitude vectors.
        use_rslora: Whether the scale is alpha / sqrt(rank).
        dataset_fingerprint: Fingerprint of the dataset it was trained on.
        variant: The condition it was trained on, such as ``structhuman``.
        step: Optimizer steps taken.
        weights: ``raw``, or ``ema`` for the moving average.
        recipe: Settings of the objective worth keeping, as plain json.
        settings: Optimizer, loss, data and precision of the training, as plain json.
        code_version: Version of regen_train that trained it.
        schema_version: Version of this record.
    """

    base_name: str
    base_revision: str | None
    base_sha256: str | None
    rank: int
    alpha: float
    targets: str = "attn+ffn"
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    dataset_fingerprint: str | None = None
    variant: str | None = None
    step: int | None = None
    weights: str = "raw"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = __version__
    schema_version: int = ADAPTER_SCHEMA_VERSION

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return lora_scale(self.alpha, self.rank, use_rslora=self.use_rslora)

    def to_json(self) -> str:
        """Return the record as a json object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "AdapterMetadata":
        """Read what `to_json` wrote.

        Raises:
            ValueError: Not json, or of another schema, or fields are missing, unknown or of a wrong type; all are
                listed.
        """
        try:
            record = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"the adapter's '{OWN_KEY}' metadata is not a json object: {error}") from error
        return cls.from_record(record)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "AdapterMetadata":
        """Read a mapping of the fields, as a checkpoint holds it.

        Raises:
            ValueError: Of another schema, or fields are missing, unknown or of a wrong type; all are listed.
        """
        version = record.get("schema_version", ADAPTER_SCHEMA_VERSION)
        if version != ADAPTER_SCHEMA_VERSION:
            raise ValueError(
                f"the adapter's metadata has schema_version {version}, this regen_train reads {ADAPTER_SCHEMA_VERSION}"
                " (written by another version: install that one)"
            )
        required = {"base_name", "base_revision", "base_sha256", "rank", "alpha"}
        faults = [f"{name} is missing" for name in sorted(required - set(record))]
        faults += [f"{name} is unknown" for name in sorted(set(record) - set(_TYPES))]
        faults += [
            f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, got {record[name]!r}"
            for name, kinds in _TYPES.items()
            if name in record and not _is_of(record[name], kinds)
        ]
        if not faults and not (record["rank"] > 0 and 0 < record["alpha"] < float("inf")):
            faults = [f"rank and alpha must be positive, got {record['rank']} and {record['alpha']}"]
        if not faults and record.get("targets", "all") not in LORA_TARGETS:
            faults = [f"targets must be one of {', '.join(LORA_TARGETS)}, got {record['targets']!r}"]
        if faults:
            raise ValueError(f"the adapter's '{OWN_KEY}' metadata is not valid: {'; '.join(faults)}")
        floats = {name: float(record[name]) for name in ("alpha", "dropout") if name in record}
        return cls(**{**record, **floats})

    def check_base(self, base_name: str, base_sha256: str) -> None:
        """Refuse a base that the adapter was not trained on.

        Raises:
            ValueError: The hashes differ. An adapter that does not know its base passes.
        """
        if self.base_sha256 is not None and self.base_sha256 != base_sha256:
            raise ValueError(
                f"the weights were trained on base {self.base_name}"
                f"{f' at revision {self.base_revision}' if self.base_revision else ''} (sha256 {self.base_sha256}), "
                f"this base is {base_name} (sha256 {base_sha256}): give --pretrained (or --model.pretrained) the "
                "weights with the first hash"
            )


def lora_scale(alpha: float, rank: int, *, use_rslora: bool = False) -> float:
    """Return what B A is multiplied by: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1; Kalajdzievski 2023, arXiv 2312.03732.
    """
    return float(alpha) / (rank**0.5 if use_rslora else rank)


def diffusers_record(metadata: AdapterMetadata, modules: Iterable[str]) -> str:
    """Return the json that diffusers builds its LoraConfig from.

    Dropout is written as 0: diffusers would leave it switched on, as it injects the layers into a model that is
    already in evaluation mode.
    """
    config = {
        "r": metadata.rank,
        "lora_alpha": int(metadata.alpha) if float(metadata.alpha).is_integer() else metadata.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "use_dora": metadata.use_dora,
        "use_rslora": metadata.use_rslora,
        "bias": "none",
    }
    return json.dumps({f"{DIFFUSERS_PREFIX}{name}": value for name, value in config.items()}, indent=2, sort_keys=True)


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds)
