"""From a dataset to batches: the stream of samples, its draws, and the LightningDataModule."""

from regen_train.data.collate import Choice, collate, pad_prompts
from regen_train.data.conditioning import Conditioning, Dropout, Variants
from regen_train.data.loader import HeldOutLoader, Loading, StreamLoader
from regen_train.data.module import ShardDataModule
from regen_train.data.opened import HeldOut, open_data
from regen_train.data.stream import GlobalBatch, Stream, microbatches_per_step, rank_offsets

__all__ = [
    "Choice",
    "Conditioning",
    "Dropout",
    "GlobalBatch",
    "HeldOut",
    "HeldOutLoader",
    "Loading",
    "ShardDataModule",
    "Stream",
    "StreamLoader",
    "Variants",
    "collate",
    "microbatches_per_step",
    "open_data",
    "pad_prompts",
    "rank_offsets",
]
