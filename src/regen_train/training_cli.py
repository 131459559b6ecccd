"""LightningCLI for this project: its callbacks, its checkpoint files, its meaning of ``--ckpt_path last``."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from regen_train.callbacks import (
    Checkpoints,
    LoraEma,
    Meter,
    Preview,
    RunConfig,
    SigmaLosses,
    StartSummary,
    StepProgress,
)
from regen_train.checkpoint_io import AtomicCheckpointIO, find_last_checkpoint, refuse_other_run
from regen_train.data import ShardDataModule
from regen_train.training import VaceModule
from regen_train.training.faults import told_of_devices, told_of_memory
from regen_train.training.strategy_checks import check_run, check_strategy_name

log = logging.getLogger(__name__)


class TrainingCLI(LightningCLI):
    """``regen_train fit``, ``validate`` and ``test``."""

    @classmethod
    def run(cls, arguments: list[str]) -> "TrainingCLI":
        """Parse a command line and run it."""
        return cls(
            VaceModule,
            ShardDataModule,
            args=arguments,
            auto_configure_optimizers=False,
            seed_everything_default=False,  # every draw is keyed by seed and sample; see draws.py
            save_config_callback=RunConfig,
            trainer_defaults={
                "max_epochs": -1,  # the stream has no end; max_steps says when to stop
                "use_distributed_sampler": False,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "callbacks": [SigmaLosses(), Meter(), StepProgress(), StartSummary()],
            },
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and the arguments of the trainer's methods that they do not take."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only"},
            "test": {"model", "dataloaders", "datamodule", "weights_only"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the configurable callbacks; one seed serves data and noise, one number model and data."""
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(LoraEma, "ema")
        parser.add_lightning_class_args(Preview, "preview")
        parser.link_arguments("data.seed", "model.seed")
        parser.link_arguments("model.context_parallel", "data.processes_per_sample")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what `run` was given, in which configurations were found by name, in place of ``sys.argv``."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would look for hyperparameters in the checkpoint, and ours holds none."""

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the atomic checkpoint files and one log folder a run; make DDP sum in a fixed order."""
        config = self._get(self.config_init, "trainer")
        check_strategy_name(config.get("strategy"))
        plugins = config.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        if config.get("logger") in (None, True):
            root = config.get("default_root_dir") or Path.cwd()
            kwargs["logger"] = TensorBoardLogger(save_dir=root, name="", version="logs")
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise self._told(error) from error
        if isinstance(trainer.strategy, DDPStrategy):
            # DDP otherwise regroups its gradient buckets after the first step, of every start: a resumed run would
            # add in another order than the one that was not killed
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise self._told(error) from error
        except torch.OutOfMemoryError as error:
            assert isinstance(self.model, VaceModule)
            raise told_of_memory(error, self.trainer, self.model) from error

    def _told(self, error: MisconfigurationException) -> ValueError:
        trainer = self._get(self.config_init, "trainer")
        return told_of_devices(error, accelerator=trainer["accelerator"], devices=trainer["devices"])

    def before_fit(self) -> None:
        """Refuse what does not go together before processes join and data opens; find the newest whole checkpoint."""
        config = self.config_init["fit"]
        faults = []
        if self.trainer.max_steps < 1:
            faults.append("trainer.max_steps must say after how many steps to stop: the stream of samples has no end")
        precision = str(config["trainer"].get("precision") or "32-true")
        if precision not in ("32-true", "32", "bf16-mixed"):
            faults.append(
                f"trainer.precision must be 32-true or bf16-mixed, got {precision}: what learns stays in fp32, and the "
                "base's own precision is model.dtype"
            )
        if faults:
            raise ValueError("; ".join(faults))
        check_run(self.trainer, self.model)
        self._resolve_last("fit", required=False)
        if not config["trainer"].get("fast_dev_run"):  # before minutes go into loading the base
            refuse_other_run(Path(self.trainer.default_root_dir), continued_from=config.get("ckpt_path"))

    def before_validate(self) -> None:
        """Refuse what does not go with the strategy; find the newest whole checkpoint."""
        check_run(self.trainer, self.model)
        self._resolve_last("validate", required=True)

    def before_test(self) -> None:
        """Refuse what does not go with the strategy; find the newest whole checkpoint."""
        check_run(self.trainer, self.model)
        self._resolve_last("test", required=True)

    def _resolve_last(self, command: str, *, required: bool) -> None:
        if self.config_init[command].get("ckpt_path") != "last":
            return
        folder = Path(self.trainer.default_root_dir)
        newest = find_last_checkpoint(folder)
        if newest is None and required:
            raise FileNotFoundError(f"--ckpt_path last: no whole checkpoint step-*.ckpt in {folder}")
        if newest is None:
            log.info("--ckpt_path last: no checkpoint in %s yet, starting at step 0", folder)
        self.config_init[command]["ckpt_path"] = None if newest is None else str(newest)
