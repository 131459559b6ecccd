"""The fail-closed gate: may this clip pass?"""

from regen_train.guard.detectors import Boxes, Detector, Detectors, NameFinder

__all__ = ["Boxes", "Detector", "Detectors", "NameFinder"]
