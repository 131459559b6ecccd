"""From videos to a dataset: look at clips, make signals, compose, judge and encode windows, pack the shards."""

from regen_train.preparation.compose import compose_clip, compose_window, compose_windows
from regen_train.preparation.encode import encode_window, latent_coverage
from regen_train.preparation.gate import Gate
from regen_train.preparation.pack import pack_dataset
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan, Verdict, survey_clip

__all__ = [
    "ClipPlan",
    "DatasetSettings",
    "Gate",
    "Verdict",
    "compose_clip",
    "compose_window",
    "compose_windows",
    "encode_window",
    "latent_coverage",
    "pack_dataset",
    "survey_clip",
]
