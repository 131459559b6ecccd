"""Person masks: files, and the extractors that make them."""

from regen_train.signals.mask.files import FILE, UNKNOWN_TRACK, MaskFiles, MaskSource, read_masks, write_masks

__all__ = [
    "FILE",
    "UNKNOWN_TRACK",
    "MaskFiles",
    "MaskSource",
    "read_masks",
    "write_masks",
]
