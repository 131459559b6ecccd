"""From a dataset to batches: the stream of samples, its draws, and the LightningDataModule."""

from regen_train.data.collate import Choice, collate
from regen_train.data.conditioning import Conditioning, Dropout, Variants
from regen_train.data.loader import HeldOutLoader, Loading, StreamLoader
from regen_train.data.module import ShardDataModule
from regen_train.data.opened import HeldOut, open_data
from regen_train.data.place import Place
from regen_train.data.stream import GlobalBatch, Stream

__all__ = [
    "Choice",
    "Conditioning",
    "Dropout",
    "GlobalBatch",
    "HeldOut",
    "HeldOutLoader",
    "Loading",
    "Place",
    "ShardDataModule",
    "Stream",
    "StreamLoader",
    "Variants",
    "collate",
    "open_data",
]
