"""Detectors behind the gate: people, faces, text, names."""

from regen_train.detectors.faces import YuNetFaces
from regen_train.detectors.names import SpacyNames, TransformersNames
from regen_train.detectors.people import TorchvisionPeople, TransformersPeople
from regen_train.detectors.text import RapidOcrText

__all__ = ["RapidOcrText", "SpacyNames", "TorchvisionPeople", "TransformersNames", "TransformersPeople", "YuNetFaces"]
