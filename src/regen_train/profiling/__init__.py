"""What a run would need and cost: memory by shapes before it, time by parts after ten steps."""

from regen_train.profiling.breakdown import Breakdown, StepBreakdown
from regen_train.profiling.needs import Needs, needs_of
from regen_train.profiling.random_data import write_random_dataset
from regen_train.profiling.remedies import remedies_of

__all__ = ["Breakdown", "Needs", "StepBreakdown", "needs_of", "remedies_of", "write_random_dataset"]
