"""Samples in WebDataset tars: write, index, read.

A dataset is a folder of ``*.tar``, ``index.parquet``, ``constants.safetensors`` and ``dataset.json``, which seals the
others by their SHA-256. Nothing is executed or extracted: no pickle, no path out of the folder, limits on every header.
"""

from regen_train.shards.cache import CacheSpec
from regen_train.shards.dataset import Constants, DatasetInfo, fingerprint_of, write_dataset_info
from regen_train.shards.index import IndexedShard, IndexRow, build_index
from regen_train.shards.loading import Dataset, load_dataset
from regen_train.shards.reader import ShardReader
from regen_train.shards.sample import (
    EncodedSample,
    decode_sample,
    encode_sample,
    sample_tensors,
)
from regen_train.shards.writer import ShardWriter

__all__ = [
    "CacheSpec",
    "Constants",
    "Dataset",
    "DatasetInfo",
    "EncodedSample",
    "IndexRow",
    "IndexedShard",
    "ShardReader",
    "ShardWriter",
    "build_index",
    "decode_sample",
    "encode_sample",
    "fingerprint_of",
    "load_dataset",
    "sample_tensors",
    "write_dataset_info",
]
