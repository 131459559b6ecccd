"""Person masks: files, and the extractors that make them."""

from regen_train.signals.mask.files import FILE, UNKNOWN_TRACK, MaskFiles, MaskSource, read_masks, write_masks
from regen_train.signals.mask.grounded_sam2 import GroundedSam2Masks
from regen_train.signals.mask.mask_rcnn import MaskRcnnMasks
from regen_train.signals.mask.sam3 import Sam3Masks

__all__ = [
    "FILE",
    "UNKNOWN_TRACK",
    "GroundedSam2Masks",
    "MaskFiles",
    "MaskRcnnMasks",
    "MaskSource",
    "Sam3Masks",
    "read_masks",
    "write_masks",
]
