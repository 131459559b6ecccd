"""Frozen Wan VACE and the LoRA that learns."""

from regen_train.model.base import BaseInfo
from regen_train.model.block_options import BlockOptions
from regen_train.model.checkpointing import Checkpointing
from regen_train.model.loading import load_wan_vace
from regen_train.model.lora import LoraSpec
from regen_train.model.memory import Upkeep, Workload, estimate_bytes, free_bytes
from regen_train.model.sharding import Spread
from regen_train.model.wan_vace import ParameterCount, WanVace

__all__ = [
    "BaseInfo",
    "BlockOptions",
    "Checkpointing",
    "LoraSpec",
    "ParameterCount",
    "Spread",
    "Upkeep",
    "WanVace",
    "Workload",
    "estimate_bytes",
    "free_bytes",
    "load_wan_vace",
]
