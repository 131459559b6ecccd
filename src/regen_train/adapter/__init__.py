"""Our one saved adapter: a LoRA file of diffusers that also says where it comes from; and the reading of all others.

The file is safetensors with keys such as ``transformer.vace_blocks.0.attn1.to_q.lora_A.weight``, the metadata of which
diffusers builds its LoraConfig, and under ``regen_train`` our own record, `AdapterMetadata`.
"""

from regen_train.adapter.factors import Factors, flatten, parse_factors
from regen_train.adapter.files import write_weights
from regen_train.adapter.importing import ADAPTER_FILE, Adapter, find_adapter, load_adapter
from regen_train.adapter.metadata import ADAPTER_SCHEMA_VERSION, AdapterMetadata, lora_scale
from regen_train.adapter.names import (
    LORA_TARGETS,
    diffusers_module,
    lora_targets,
    original_module,
    to_diffusers_names,
    to_original_names,
)
from regen_train.adapter.saving import save_adapter, save_original_adapter

__all__ = [
    "ADAPTER_FILE",
    "ADAPTER_SCHEMA_VERSION",
    "LORA_TARGETS",
    "Adapter",
    "AdapterMetadata",
    "Factors",
    "diffusers_module",
    "find_adapter",
    "flatten",
    "load_adapter",
    "lora_scale",
    "lora_targets",
    "original_module",
    "parse_factors",
    "save_adapter",
    "save_original_adapter",
    "to_diffusers_names",
    "to_original_names",
    "write_weights",
]
