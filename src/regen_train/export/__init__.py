"""Trained weights for other tools: written, reloaded as each tool does, compared with the trained model, then named."""

from regen_train.export.check import ExportMismatchError
from regen_train.export.checkpoint import FORMATS, ExportReport, Format, export_checkpoint
from regen_train.export.writing import ExportedFile, export_diffusers, export_merged, export_wan

__all__ = [
    "FORMATS",
    "ExportMismatchError",
    "ExportReport",
    "ExportedFile",
    "Format",
    "export_checkpoint",
    "export_diffusers",
    "export_merged",
    "export_wan",
]
