"""When a run writes checkpoints and adapters, and how it stops when told to."""

import fcntl
import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from regen_train.adapter import save_adapter
from regen_train.callbacks.requeue import requeue_slurm_job
from regen_train.callbacks.undeclared import is_rehearsal
from regen_train.checkpoint_io import NAME, list_checkpoints, refuse_other_run
from regen_train.files import sync
from regen_train.model.sharding import own_part
from regen_train.training import VaceModule

log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Checkpoints(Checkpoint):
    """Writes ``step-NNNNNN.ckpt`` into the run's folder, and ``last.ckpt`` as a link to the newest.

    Also stops the run cleanly on SIGTERM, SIGUSR1 and the first Ctrl-C: the step in progress is finished, a checkpoint
    written, the process exits. On SIGUSR1 a SLURM job also puts itself back into the queue.

    Args:
        every_n_steps: Optimizer steps between checkpoints; one more is written at the end.
        keep_last: How many of the newest to keep; null keeps all.
        save_adapter: Write the LoRA alone beside each checkpoint, as ``adapter-step-NNNNNN.safetensors``.
    """

    def __init__(self, every_n_steps: int = 2000, keep_last: int | None = None, save_adapter: bool = True) -> None:
        if every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps must be at least 1, got {every_n_steps}")
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"checkpoint.keep_last must be at least 1, or null for all; got {keep_last}")
        self.every_n_steps, self.keep_last, self.save_adapter = every_n_steps, keep_last, save_adapter
        self._told: set[signal.Signals] = set()
        self._saved_step = -1
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._lock: BinaryIO | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Claim the run's folder, where it is known by now what the run continues."""
        if not trainer.strategy.restore_checkpoint_after_setup:
            self._claim(trainer)

    def _claim(self, trainer: L.Trainer) -> None:
        """Refuse to write over another run, and remove what a killed write left behind."""
        folder = Path(trainer.default_root_dir)
        if is_rehearsal(trainer):
            return
        refuse_other_run(folder, continued_from=trainer.ckpt_path)
        if trainer.is_global_zero:
            self._lock = _lock(folder)
            for torn in folder.glob(".*.tmp*"):
                torn.unlink(missing_ok=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals from Lightning, whose handlers leave without a checkpoint or save amid a step."""
        if trainer.strategy.restore_checkpoint_after_setup:
            self._claim(trainer)
        self._saved_step = trainer.global_step
        self._told = set()
        self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGUSR1 and self._told - {signal.SIGUSR1}:
            # told again: leave at once, such as from a collective that another process left
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._told.add(signal.Signals(number))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when due, or when any process was told to stop."""
        if trainer.global_step == self._saved_step or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = _anyone(trainer, bool(self._told))
        if stop or trainer.global_step % self.every_n_steps == 0:
            self._save(trainer, pl_module)
        if stop:
            log.warning("told to stop: saved step %d; continue with --ckpt_path last", trainer.global_step)
            if _anyone(trainer, signal.SIGUSR1 in self._told) and trainer.is_global_zero:
                requeue_slurm_job()
            trainer.should_stop = True
            # Lightning validates before it stops, and there may be seconds left
            trainer.fit_loop.epoch_loop._skip_next_val = True

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Cut a validation short when told to stop; the step after it is saved."""
        if trainer.state.fn == "fit" and _anyone(trainer, bool(self._told)):
            raise StopIteration  # ends the evaluation loop

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step; give the signals and the folder back."""
        if trainer.global_step != self._saved_step:
            self._save(trainer, pl_module)
        self._let_go()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals and the folder back; end the other processes, which would wait for this one."""
        self._let_go()
        launcher = trainer.strategy.launcher
        if trainer.is_global_zero and launcher is not None and not isinstance(exception, KeyboardInterrupt):
            launcher.kill(signal.SIGKILL)

    def _let_go(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_rehearsal(trainer):
            return
        assert isinstance(pl_module, VaceModule)
        folder = Path(trainer.default_root_dir)
        learning = pl_module.wan.trained_parameters().items()
        broken = [name for name, value in learning if not own_part(value).detach().isfinite().all()]
        if _anyone(trainer, bool(broken)):
            raise ValueError(
                f"{len(broken)} weights hold NaN or infinity at step {trainer.global_step}, such as "
                f"{broken[0] if broken else 'some of another process'}; they are not saved, and earlier checkpoints in "
                f"{folder} are intact"
            )
        path = folder / NAME.format(step=trainer.global_step)
        trainer.save_checkpoint(path, weights_only=False)  # all that a resume needs, not the weights alone
        self._saved_step = trainer.global_step
        factors = pl_module.wan.lora_state() if self.save_adapter and pl_module.lora is not None else None
        if not trainer.is_global_zero:
            return
        link = folder / ".last.ckpt.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(folder / "last.ckpt")
        sync(folder)
        if factors is not None:
            save_adapter(_adapter_path(path), factors, pl_module.metadata())
        if self.keep_last is not None:
            for old in list_checkpoints(folder)[: -self.keep_last]:
                old.unlink(missing_ok=True)
                _adapter_path(old).unlink(missing_ok=True)


def _anyone(trainer: L.Trainer, told: bool) -> bool:
    """Whether it is so for any process; all must ask at the same place."""
    return bool(trainer.strategy.reduce_boolean_decision(told, all=False))


def _lock(folder: Path) -> BinaryIO:
    """Claim a run's folder for this process; held until the file is closed, also by a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FileExistsError(
            f"another run is writing into {folder}; choose another folder with --trainer.default_root_dir"
        ) from None
    return file


def _adapter_path(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"adapter-{checkpoint.stem}.safetensors")
