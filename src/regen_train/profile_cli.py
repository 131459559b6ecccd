"""``regen_train profile``: what a configuration needs and costs here, by ten steps of it that leave nothing behind."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from regen_train.callbacks import Checkpoints
from regen_train.configs import resolve_arguments
from regen_train.data import ShardDataModule
from regen_train.model import free_bytes
from regen_train.model.outline import outline_wan_vace
from regen_train.profiling import StepBreakdown, needs_of, write_random_dataset
from regen_train.schema import Bucket
from regen_train.training import VaceModule
from regen_train.training.dataset_check import vae_sha256
from regen_train.training.workload import largest_tokens, upkeep_of
from regen_train.training_cli import TrainingCLI

_WARMUP = 2
_HELP = f"""usage: regen_train profile --config CONFIG (--bucket FxHxW | --data.path X) [--steps N] [any option of fit]

Prints the memory that training needs by its shapes and which checkpointing policy fits; then trains for
{_WARMUP} steps to warm up and N more (10), and prints where their time went. Leaves no files behind.

  --bucket 49x480x832   random latents of this shape in place of the dataset data.path
  --steps 10            steps to measure

One GPU for a configuration of two, without a dataset:
  regen_train profile --config structhuman.yaml --bucket 49x480x832 --trainer.devices 1
    --trainer.accumulate_grad_batches 2

regen_train fit --help shows all other options."""


class ProfileCLI(TrainingCLI):
    """``fit`` for a few steps, with a look at its memory before and its time after."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is profiled."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--bucket", type=str | None, default=None, help="shape of random clips, as 49x480x832")
        parser.add_argument("--steps", type=int, default=10, help="steps to measure")

    def before_fit(self) -> None:
        """Print what the run needs; take what writes files out of it."""
        super().before_fit()
        config, module, data = self.config_init["fit"], self.model, self.datamodule
        assert isinstance(module, VaceModule)
        assert isinstance(data, ShardDataModule)
        if config["steps"] < 1:
            raise ValueError(f"steps must be at least 1, got {config['steps']}")
        outline = outline_wan_vace(
            module.pretrained,
            dtype=module.base_dtype,
            lora=module.lora,
            trainable=module.trainable,
            revision=module.revision,
            blocks=module.blocks,
        )
        if config["bucket"] is not None:
            write_random_dataset(
                Path(data.path),
                Bucket.parse(config["bucket"]),
                outline.geometry,
                variants=data.variants.shares,
                num_samples=data.global_batch_size,
                vae_sha256=vae_sha256(module.pretrained, module.revision) or "none",
            )
        data.setup("validate")  # opens the dataset; the stream is made by the run
        device = self.trainer.strategy.root_device
        needs = needs_of(
            outline,
            largest_tokens(data),
            batch_size=data.per_device_batch_size,
            device_type=device.type,
            upkeep=upkeep_of(self.trainer),
        )
        free = free_bytes(device, processes=self.trainer.num_devices)
        _print(needs.describe(free=free, device=str(device), policy=module.checkpointing))
        if module.blocks.compile:
            _print("  compile      what the compiler fuses is not kept, so activations are at most these")
        callbacks: list[Any] = vars(self.trainer)["callbacks"]
        callbacks[:] = [StepBreakdown(_WARMUP), *(kept for kept in callbacks if not isinstance(kept, Checkpoints))]

    def after_fit(self) -> None:
        """Print where the time went."""
        breakdown = next(c for c in vars(self.trainer)["callbacks"] if isinstance(c, StepBreakdown))
        assert breakdown.result is not None
        _print(breakdown.result.describe())


def main(arguments: list[str]) -> None:
    """Parse the command line and profile."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP)
        return
    arguments = resolve_arguments(arguments)
    if _value(arguments, "--bucket") is None and not _names_dataset(arguments):
        raise ValueError(
            "give --data.path or --bucket: the dataset to train on, or a shape such as 49x480x832 for random clips"
        )
    steps = _value(arguments, "--steps") or "10"
    with tempfile.TemporaryDirectory(prefix="regen_train_profile_") as folder:
        quiet = [
            *("--trainer.max_steps", str(_WARMUP + int(steps)) if steps.isdecimal() else "1"),
            *("--trainer.default_root_dir", f"{folder}/run", "--trainer.logger", "false"),
            *("--trainer.limit_val_batches", "0", "--preview.num_clips", "0"),
        ]
        if _value(arguments, "--bucket") is not None:
            quiet += ["--data.path", f"{folder}/random", "--data.expect", "null"]
            quiet += ["--data.validation.num_samples", "0", "--data.validation.path", "null"]
        ProfileCLI.run(["fit", *arguments, *quiet])


def _names_dataset(arguments: list[str]) -> bool:
    """Tell whether the command line or a configuration on it says where the dataset lies."""
    if _values(arguments, "--data.path") or _values(arguments, "--data"):
        return True
    return any(map(_states_dataset, [*_values(arguments, "--config"), *_values(arguments, "-c")]))


def _states_dataset(config: str) -> bool:
    try:
        data = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["data"]
    except yaml.YAMLError:
        return True  # the parser says what is wrong with the file
    except (KeyError, TypeError):
        return False
    return isinstance(data, dict) and data.get("path") is not None


def _value(arguments: list[str], name: str) -> str | None:
    """Return the value of an option as it stands on the command line, the last if there are several."""
    return next(reversed(_values(arguments, name)), None)


def _values(arguments: list[str], name: str) -> list[str]:
    following = [value for option, value in pairwise(arguments) if option == name]
    joined = [argument.removeprefix(f"{name}=") for argument in arguments if argument.startswith(f"{name}=")]
    return following + joined


@rank_zero_only
def _print(text: str) -> None:
    print(text, flush=True)
