"""The three formats: written, reloaded as their consumers do, compared, and only then named."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from regen_train.adapter import (
    ADAPTER_FILE,
    AdapterMetadata,
    load_adapter,
    save_adapter,
    save_original_adapter,
    to_original_names,
    write_weights,
)
from regen_train.adapter.files import as_os_error
from regen_train.export.check import (
    Agreement,
    Gate,
    fresh_base,
    lora_faults,
    plain_config,
    state_faults,
    wrap,
)
from regen_train.export.staging import staged
from regen_train.model import LoraSpec, WanVace
from regen_train.model.assemble import assign_state, empty_transformer
from regen_train.model.lora import add_lora
from regen_train.pretrained import DTYPES, Precision

WAN_FILE: Final = "wan_lora.safetensors"
MERGED_FOLDER: Final = "merged"
MERGED_FILE: Final = "wan_vace_merged.safetensors"
SHARD_SIZE = "5GB"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedFile:
    """One file or folder that was written, reloaded and found to agree.

    Args:
        format: ``diffusers``, ``wan`` or ``merged``.
        path: Where it lies.
        difference: Of the velocity from the trained model's.
        limit: What the difference may be at most.
    """

    format: str
    path: Path
    difference: float
    limit: float


def export_diffusers(model: WanVace, output: str | Path, metadata: AdapterMetadata) -> ExportedFile:
    """Write the LoRA for diffusers' ``load_lora_weights``: ``pytorch_lora_weights.safetensors``.

    Args:
        model: The trained model, loaded in fp32.
        output: The folder.
        metadata: What the file says of itself.

    Raises:
        ValueError: The model has no LoRA or is not in fp32.
        ExportMismatchError: diffusers does not make the trained model of the file; it is not kept.
        OSError: The file could not be written; nothing is left of it.
    """
    _require_lora(model, "diffusers")
    with staged(Path(output)) as folder:
        save_adapter(folder / ADAPTER_FILE, model.lora_state(), metadata)
        transformer = fresh_base(model)
        _load_as_diffusers(transformer, folder / ADAPTER_FILE)
        agreement = Gate(model).check_fp32("diffusers", wrap(model, transformer), lora_faults(model, transformer))
    return _exported("diffusers", Path(output) / ADAPTER_FILE, agreement)


def export_wan(model: WanVace, output: str | Path, metadata: AdapterMetadata) -> ExportedFile:
    """Write the LoRA for DiffSynth-Studio and ComfyUI: ``wan_lora.safetensors``, original names, scale folded into B.

    Args:
        model: As in `export_diffusers`.
        output: The folder.
        metadata: What the file says of itself.

    Raises:
        ValueError: As in `export_diffusers`, and for DoRA, which this format cannot carry.
        ExportMismatchError: Reading the file does not give the trained model; it is not kept.
        OSError: The file could not be written; nothing is left of it.
    """
    _require_lora(model, "wan")
    with staged(Path(output)) as folder:
        save_original_adapter(folder / WAN_FILE, model.lora_state(), metadata)
        adapter = load_adapter(folder / WAN_FILE)
        assert model.lora is not None
        # alpha = rank, as the readers of this format take it
        spec = LoraSpec(rank=adapter.rank, targets=model.lora.targets)
        transformer = fresh_base(model)
        add_lora(transformer, spec, seed=0)
        reloaded = wrap(model, transformer, lora=spec)
        reloaded.load_lora_state(adapter.state)
        agreement = Gate(model).check_fp32("wan", reloaded, lora_faults(model, transformer))
    return _exported("wan", Path(output) / WAN_FILE, agreement)


def export_merged(
    model: WanVace, output: str | Path, metadata: AdapterMetadata, *, dtype: Precision = "bf16"
) -> tuple[ExportedFile, ExportedFile]:
    """Write whole weights, merged in fp32 and then cast: ``merged/transformer`` for diffusers, and one original file.

    Beside the model in fp32 this holds the merged VACE projections in fp32 and one copy of all weights in ``dtype``.

    Args:
        model: As in `export_diffusers`; also one whose own weights were trained.
        output: The folder.
        metadata: What the original-named file says of itself.
        dtype: Precision of the files. Norms, modulation and time embedding stay in fp32, as diffusers keeps them.

    Returns:
        The diffusers folder and the original-named file.

    Raises:
        ValueError: The model is not in fp32.
        ExportMismatchError: What diffusers loads of either is not the trained model; neither is kept.
        OSError: The files could not be written; nothing is left of them.
    """
    _require_fp32(model, "merged")
    with staged(Path(output)) as stage:
        folder, gate = stage / MERGED_FOLDER, Gate(model)
        _write_merged(gate, folder, metadata, DTYPES[dtype])
        diffusers = _check_merged(gate, _load_folder(folder, DTYPES[dtype]), dtype, "merged/transformer")
        original = _check_merged(gate, _load_single_file(folder, DTYPES[dtype]), dtype, f"merged/{MERGED_FILE}")
    final = Path(output) / MERGED_FOLDER
    return (
        _exported("merged", final / "transformer", diffusers),
        _exported("merged", final / MERGED_FILE, original),
    )


def _write_merged(gate: Gate, folder: Path, metadata: AdapterMetadata, dtype: torch.dtype) -> None:
    model = gate.model
    merged = model.merged_state(torch.float32)
    # The merge itself is checked before the cast: rounding to bf16 could hide a small error of it.
    exact = assign_state(empty_transformer(plain_config(model)), merged, torch.float32)
    gate.check_fp32("merged", wrap(model, exact), [])
    module = assign_state(empty_transformer(plain_config(model)), merged, dtype)
    folder.mkdir()
    with as_os_error(f"{MERGED_FOLDER}/transformer"):
        module.save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
    write_weights(folder / MERGED_FILE, _original(module.state_dict()), {"regen_train": metadata.to_json()})


def _original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {theirs: state[ours] for ours, theirs in to_original_names(state).items()}


def _check_merged(gate: Gate, transformer: Any, dtype: Precision, what: str) -> Agreement:
    faults = state_faults(gate.model.merged_state(torch.float32), transformer.state_dict())
    check = gate.check_fp32 if dtype == "fp32" else gate.check_bf16
    return check(what, wrap(gate.model, transformer, DTYPES[dtype]), faults)


def _load_as_diffusers(transformer: Any, file: Path) -> None:
    from diffusers import WanVACEPipeline

    pipeline = WanVACEPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=transformer)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="default", local_files_only=True)


def _load_folder(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import WanVACETransformer3DModel

    return WanVACETransformer3DModel.from_pretrained(
        folder, subfolder="transformer", dtype=dtype, local_files_only=True
    )


def _load_single_file(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import WanVACETransformer3DModel

    with _quiet_diffusers():  # it warns that it casts norms too, which is how its users load such a file
        return WanVACETransformer3DModel.from_single_file(
            str(folder / MERGED_FILE), config=str(folder / "transformer"), dtype=dtype, local_files_only=True
        )


@contextmanager
def _quiet_diffusers() -> Iterator[None]:
    from diffusers.utils import logging as diffusers_logging

    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


def _require_lora(model: WanVace, what: str) -> None:
    if model.lora is None:
        raise ValueError(f"the {what} format holds a LoRA, and this model has none: export 'merged' instead")
    _require_fp32(model, what)


def _require_fp32(model: WanVace, what: str) -> None:
    if model.dtype != torch.float32:
        raise ValueError(f"export of {what} compares and merges in fp32: load the model with dtype 'fp32'")


def _exported(what: str, path: Path, agreement: Agreement) -> ExportedFile:
    # The name alone: while all formats are written, the path is that of a hidden folder.
    logger.debug("%s: reloaded, differs by %.2e, limit %.2e", path.name, agreement.difference, agreement.limit)
    return ExportedFile(what, path, agreement.difference, agreement.limit)
