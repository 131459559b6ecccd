"""Depth of every pixel: files, and the extractors that make them."""

from regen_train.signals.depth.files import FILE, DepthFiles, DepthSource, read_depth, write_depth

__all__ = ["FILE", "DepthFiles", "DepthSource", "read_depth", "write_depth"]
