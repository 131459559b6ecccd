"""Engines: how the jobs of a stage are spread over workers, and what a stage is."""

from regen_train.preparation.engines.cluster import RayEngine
from regen_train.preparation.engines.local import LocalEngine, pick_devices, usable_cores
from regen_train.preparation.engines.stage import (
    Attempt,
    Engine,
    Fault,
    Finished,
    Job,
    Processed,
    Stage,
    StorageError,
)

__all__ = [
    "Attempt",
    "Engine",
    "Fault",
    "Finished",
    "Job",
    "LocalEngine",
    "Processed",
    "RayEngine",
    "Stage",
    "StorageError",
    "pick_devices",
    "usable_cores",
]
