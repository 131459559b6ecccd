"""Training: what one step computes (`objective`), how weights move (`optimizer`), the LightningModule (`module`)."""

from regen_train.training.module import VALIDATION_SIGMAS, VaceModule
from regen_train.training.objective import LossSpec, SampleLosses, sample_losses
from regen_train.training.optimizer import OptimizerSpec
from regen_train.training.strategies import FullyShardedStrategy
from regen_train.training.zero import ZeroStrategy

__all__ = [
    "VALIDATION_SIGMAS",
    "FullyShardedStrategy",
    "LossSpec",
    "OptimizerSpec",
    "SampleLosses",
    "VaceModule",
    "ZeroStrategy",
    "sample_losses",
]
