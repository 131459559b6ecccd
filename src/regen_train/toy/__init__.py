"""Small stand-ins for the real thing: a tiny Wan VACE that fits anywhere, and a drawn world of people."""

from regen_train.toy.tiny import build_tiny_wan_vace
from regen_train.toy.world import WorldOptions, write_world

__all__ = ["WorldOptions", "build_tiny_wan_vace", "write_world"]
