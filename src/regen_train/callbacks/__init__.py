"""What happens around training: checkpoints, averages, measurements, pictures."""

from regen_train.callbacks.checkpoints import Checkpoints
from regen_train.callbacks.ema import LoraEma
from regen_train.callbacks.losses import SigmaLosses
from regen_train.callbacks.meter import Meter
from regen_train.callbacks.preview import Preview
from regen_train.callbacks.progress import StepProgress
from regen_train.callbacks.run_config import RunConfig
from regen_train.callbacks.summary import StartSummary

__all__ = [
    "Checkpoints",
    "LoraEma",
    "Meter",
    "Preview",
    "RunConfig",
    "SigmaLosses",
    "StartSummary",
    "StepProgress",
]
