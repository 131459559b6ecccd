"""Frozen Wan VACE and the LoRA that learns."""

from regen_train.model.base import BaseInfo
from regen_train.model.loading import load_wan_vace
from regen_train.model.lora import LoraSpec
from regen_train.model.wan_vace import ParameterCount, WanVace

__all__ = ["BaseInfo", "LoraSpec", "ParameterCount", "WanVace", "load_wan_vace"]
