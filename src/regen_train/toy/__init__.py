"""Small stand-ins for the real thing: a tiny Wan VACE that fits anywhere."""

from regen_train.toy.tiny import build_tiny_wan_vace

__all__ = ["build_tiny_wan_vace"]
