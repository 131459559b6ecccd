"""Video files with people in, the same videos with other people out."""

from regen_train.anonymize.painter import Painter, Painting, load_painter

__all__ = ["Painter", "Painting", "load_painter"]
