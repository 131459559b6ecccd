"""What an export starts from: a checkpoint, its moving average, an adapter, or a LoRA file of another tool."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from regen_train.adapter import Adapter, AdapterMetadata, flatten, load_adapter, parse_factors
from regen_train.checkpoint_io import read_checkpoint
from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.model.random_init import RANDOM_PREFIX

Trainable = Literal["lora", "vace", "all"]


@dataclass(frozen=True)
class TrainedWeights:
    """Weights that were trained, before a base is loaded under them.

    Args:
        state: Under our names for a LoRA, under diffusers' names otherwise.
        trainable: What was trained.
        lora: How to insert the factors; None unless ``trainable`` is ``lora``.
        metadata: Where they come from; None for files of other tools.
        base: What to load as the base where the user names none; None if that is not known.
        revision: Of ``base``.
    """

    state: Mapping[str, Tensor]
    trainable: Trainable
    lora: LoraSpec | None
    metadata: AdapterMetadata | None
    base: str | None
    revision: str | None


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in fp32, and what its exports say of themselves."""

    model: WanVace
    metadata: AdapterMetadata


def read_trained(path: Path, *, ema: bool) -> TrainedWeights:
    """Read what to export.

    Args:
        path: A ``.ckpt`` of a training run, or whatever `load_adapter` reads.
        ema: Take the moving average of a checkpoint instead of its weights.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: It is torn, of another kind, has no moving average, or holds NaN or infinity.
    """
    if path.suffix == ".ckpt":
        return _from_checkpoint(path, ema=ema)
    if ema:
        raise ValueError(f"{path}: only a .ckpt holds a moving average beside its weights; export it without ema")
    adapter = load_adapter(path)
    known = adapter.metadata
    return TrainedWeights(
        state=adapter.state,
        trainable="lora",
        lora=_spec(known or adapter),
        metadata=known,
        base=_loadable(known.base_name) if known else None,
        revision=known.base_revision if known else None,
    )


def load_trained(trained: TrainedWeights, *, pretrained: str | None, revision: str | None) -> LoadedModel:
    """Load the base in fp32 and put the trained weights into it.

    Args:
        trained: The weights.
        pretrained: The base; None for the one they name.
        revision: Revision of ``pretrained``.

    Raises:
        FileNotFoundError: The base is not found.
        ValueError: No base is named, it is not the one the weights were trained on, or they do not fit it.
    """
    name = pretrained or trained.base
    if name is None:
        raise ValueError(f"{_where_from(trained.metadata)}: name it with --pretrained PATH")
    try:
        model = load_wan_vace(
            name,
            dtype="fp32",
            lora=trained.lora,
            trainable=trained.trainable,
            revision=revision if pretrained else trained.revision,
        )
    except FileNotFoundError as error:
        if pretrained:
            raise
        raise FileNotFoundError(f"{error}; {_where_from(trained.metadata)}: name it with --pretrained PATH") from error
    metadata = trained.metadata or _imported(trained, model)
    metadata.check_base(model.base.name, model.base.sha256)
    if trained.trainable == "lora":
        # Another tool's LoRA may sit on fewer modules than our target set has: the others keep their fresh factors,
        # which change nothing.
        fresh = {} if trained.metadata else model.lora_state()
        model.load_lora_state({**fresh, **trained.state})
    else:
        model.load_trainable_state(trained.state)
    return LoadedModel(model, metadata)


def _from_checkpoint(path: Path, *, ema: bool) -> TrainedWeights:
    content = _read_checkpoint(path)
    stated = content["regen_train"]
    part = "ema_state_dict" if ema else "state_dict"
    if not content.get(part):
        raise ValueError(
            f"{path}: holds no moving average ({part}); train with ema.decay above 0, or export without ema"
        )
    state = {name.removeprefix("model."): tensor for name, tensor in content[part].items()}
    _require_finite(path, state)
    names = {field.name for field in fields(AdapterMetadata)}
    try:
        metadata = AdapterMetadata.from_record({name: stated[name] for name in stated if name in names})
        trainable = cast(Trainable, stated.get("trainable", "lora"))
        if trainable == "lora":
            state = flatten(parse_factors(state).modules)
        else:
            state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return TrainedWeights(
        state=state,
        trainable=trainable,
        lora=_spec(metadata) if trainable == "lora" else None,
        metadata=replace(metadata, weights="ema" if ema else "raw"),
        base=stated.get("pretrained") or _loadable(metadata.base_name),
        revision=metadata.base_revision,
    )


def _read_checkpoint(path: Path) -> dict[str, Any]:
    content = read_checkpoint(path)
    if not isinstance(content.get("regen_train"), dict):
        raise ValueError(f"{path}: is no checkpoint of regen_train: it does not say what was trained")  # noqa: TRY004
    return content


def _require_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(
            f"{path}: the checkpoint's weights hold NaN or infinity ({len(bad)} tensors, first {bad[0]}): the run "
            "diverged; take an earlier checkpoint"
        )


def _loadable(base_name: str) -> str | None:
    """Return what metadata call the base if it can be found by that: a folder's last name alone could be any folder."""
    return base_name if "/" in base_name or base_name.startswith(RANDOM_PREFIX) else None


def _where_from(metadata: AdapterMetadata | None) -> str:
    if metadata is None:
        return "the LoRA file does not say what base it was trained on"
    return f"the weights were trained on base {metadata.base_name} (sha256 {metadata.base_sha256 or 'unknown'})"


def _spec(source: Adapter | AdapterMetadata) -> LoraSpec:
    return LoraSpec(
        rank=source.rank,
        alpha=source.alpha,
        targets=cast(Any, source.targets),
        use_dora=source.use_dora,
        use_rslora=source.use_rslora,
    )


def _imported(trained: TrainedWeights, model: WanVace) -> AdapterMetadata:
    """Describe a LoRA of another tool; its base is the one the user named."""
    if trained.lora is None:
        raise ValueError("the weights do not say where they come from")
    return AdapterMetadata(
        base_name=model.base.name,
        base_revision=model.base.revision,
        base_sha256=model.base.sha256,
        rank=trained.lora.rank,
        alpha=trained.lora.effective_alpha,
        targets=trained.lora.targets,
        use_dora=trained.lora.use_dora,
        use_rslora=trained.lora.use_rslora,
        code_version="imported",
    )
