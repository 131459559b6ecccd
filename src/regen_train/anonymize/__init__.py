"""Video files with people in, the same videos with other people out."""

from regen_train.anonymize.options import AnonymizeOptions, PainterOptions, VideoOptions, WindowOptions
from regen_train.anonymize.painter import Painter, Painting, load_painter
from regen_train.anonymize.video import AnonymizeReport, anonymize_video
from regen_train.anonymize.window import GateRefusedError

__all__ = [
    "AnonymizeOptions",
    "AnonymizeReport",
    "GateRefusedError",
    "Painter",
    "PainterOptions",
    "Painting",
    "VideoOptions",
    "WindowOptions",
    "anonymize_video",
    "load_painter",
]
