"""From a checkpoint or any LoRA file to files that other tools load, with their model card."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from regen_train.adapter import AdapterMetadata
from regen_train.export.card import CARD_FILE, model_card
from regen_train.export.sources import TrainedWeights, load_trained, read_trained
from regen_train.export.staging import require_folder, staged
from regen_train.export.writing import ExportedFile, export_diffusers, export_merged, export_wan
from regen_train.pretrained import Precision

Format = Literal["diffusers", "wan", "merged"]
FORMATS: Final[tuple[Format, ...]] = ("diffusers", "wan", "merged")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Args:
        files: Each with how far it is from the trained model.
        card: The model card.
        metadata: What the files say of themselves.
    """

    files: tuple[ExportedFile, ...]
    card: Path
    metadata: AdapterMetadata


def export_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    formats: Sequence[Format] = FORMATS,
    *,
    pretrained: str | None = None,
    revision: str | None = None,
    ema: bool = False,
    dtype: Precision = "bf16",
) -> ExportReport:
    """Export trained weights; each file is reloaded as its consumer does and compared with the trained model.

    Either all formats are written or ``output`` is as it was before. The base is held once in fp32; merging adds the
    VACE projections in fp32 and one copy of all weights in ``dtype``.

    Args:
        checkpoint: A ``.ckpt``, an adapter (file or folder), or a LoRA file of diffusers, DiffSynth-Studio or ComfyUI.
        output: The folder; files in it that have the same names are replaced.
        formats: ``diffusers`` = LoRA for diffusers; ``wan`` = LoRA for DiffSynth-Studio and ComfyUI; ``merged`` =
            whole weights, as a diffusers folder and as one original-named file.
        pretrained: The base; None for the one the weights name.
        revision: Revision of ``pretrained`` on the hub.
        ema: Export a checkpoint's moving average instead of its weights.
        dtype: Precision of merged weights.

    Raises:
        FileNotFoundError: The checkpoint or the base is not found.
        ValueError: ``output`` is a file, the weights are not finite, a format cannot carry them, or they do not fit the
            base; all faults are listed.
        ExportMismatchError: A reloaded file does not compute what the trained model does.
        OSError: A file could not be written.
    """
    require_folder(Path(output))
    trained = read_trained(Path(checkpoint), ema=ema)
    check_formats(formats, trained)
    loaded = load_trained(trained, pretrained=pretrained, revision=revision)
    model, metadata = loaded.model, loaded.metadata
    files: list[ExportedFile] = []
    with staged(Path(output)) as folder:
        if "diffusers" in formats:
            files.append(export_diffusers(model, folder, metadata))
        if "wan" in formats:
            files.append(export_wan(model, folder, metadata))
        if "merged" in formats:
            files.extend(export_merged(model, folder, metadata, dtype=dtype))
        named = tuple(replace(file, path=file.path.relative_to(folder)) for file in files)
        card = model_card(metadata, named, trainable=trained.trainable, dtype=dtype, folder=folder)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    final = tuple(replace(file, path=Path(output) / file.path) for file in named)
    return ExportReport(final, Path(output) / CARD_FILE, metadata)


def check_formats(formats: Sequence[str], trained: TrainedWeights) -> None:
    """Refuse formats that are unknown or cannot carry the weights.

    Raises:
        ValueError: Some are; all faults are listed.
    """
    faults = [f"{name!r} is no format; known are {', '.join(FORMATS)}" for name in formats if name not in FORMATS]
    if not formats:
        faults.append(f"name at least one format of {', '.join(FORMATS)}")
    if trained.lora is None:
        faults += [
            f"{name!r} holds a LoRA, but the checkpoint trained {trained.trainable!r}: export 'merged' alone"
            for name in ("diffusers", "wan")
            if name in formats
        ]
    elif trained.lora.use_dora and "wan" in formats:
        faults.append("'wan' cannot carry DoRA: leave it out and use 'merged' in DiffSynth-Studio and ComfyUI")
    if faults:
        raise ValueError("; ".join(faults))
