"""What a clip shows, in words that do not identify anybody: files, and the sources that make them."""

from regen_train.signals.caption.files import (
    FILE,
    MAX_BYTES,
    CaptionFiles,
    CaptionSource,
    read_caption,
    write_caption,
)
from regen_train.signals.caption.metadata import MetadataCaptions
from regen_train.signals.caption.qwen3vl import Qwen3VlCaptions

__all__ = [
    "FILE",
    "MAX_BYTES",
    "CaptionFiles",
    "CaptionSource",
    "MetadataCaptions",
    "Qwen3VlCaptions",
    "read_caption",
    "write_caption",
]
