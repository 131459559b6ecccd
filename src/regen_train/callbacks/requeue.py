"""Put a SLURM job back into its queue."""

import logging
import os
import subprocess

log = logging.getLogger(__name__)


def requeue_slurm_job() -> None:
    """Run ``scontrol requeue`` on the job that this process belongs to; a failure is logged with what to do by hand.

    Outside SLURM nothing happens.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        fault = done.stderr.strip() if done.returncode else None
    except OSError as error:
        fault = str(error)
    if fault is None:
        log.warning("requeued SLURM job %s: it goes on when it gets its turn", job)
    else:
        log.warning("%s failed: %s; submit the job again by hand, it goes on from here", " ".join(command), fault)
