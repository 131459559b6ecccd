"""From videos and signals to a dataset: survey the clips, compose and encode their windows, pack the shards."""

from regen_train.preparation.compose import ComposedClip, compose_clip, compose_window
from regen_train.preparation.encode import encode_window, latent_coverage
from regen_train.preparation.pack import pack_dataset
from regen_train.preparation.prepare import EncodeReport, Sources, encode_clips
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan, Survey, Verdict, survey_clip, survey_clips

__all__ = [
    "ClipPlan",
    "ComposedClip",
    "DatasetSettings",
    "EncodeReport",
    "Sources",
    "Survey",
    "Verdict",
    "compose_clip",
    "compose_window",
    "encode_clips",
    "encode_window",
    "latent_coverage",
    "pack_dataset",
    "survey_clip",
    "survey_clips",
]
