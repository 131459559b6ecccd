"""Where Lightning's counters stand after a resume."""

from typing import Any


def align_progress(checkpoint: dict[str, Any], accumulate_grad_batches: int) -> None:
    """Set Lightning's batch counters to whole optimizer steps of this run's accumulation.

    Lightning counts microbatches. On another world size a step has another number of them, and a counter out of phase
    would end the first step after a resume too early. It also counts the last step only after its checkpoint is
    written, so logged steps would repeat.
    """
    step = int(checkpoint["global_step"])
    loop = checkpoint["loops"]["fit_loop"]
    for counters in (loop["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        for name in counters:
            counters[name] = step * accumulate_grad_batches
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step
