"""The run's configuration, kept beside its checkpoints."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from regen_train.callbacks.undeclared import is_rehearsal


class RunConfig(SaveConfigCallback):
    """Writes the complete configuration as ``config.yaml`` into the run's folder once training starts."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        super().__init__(parser, config, **kwargs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Do nothing yet: a run that is refused must not touch the folder of an earlier one."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        if trainer.is_global_zero and not is_rehearsal(trainer):
            path = Path(trainer.default_root_dir) / "config.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, path, overwrite=True, multifile=False)
