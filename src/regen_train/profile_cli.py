"""``regen_train profile``: what a configuration needs and costs here, by ten steps of it that leave nothing behind."""

import re
import tempfile
from argparse import ArgumentError
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from regen_train.callbacks import Checkpoints
from regen_train.configs import resolve_arguments
from regen_train.data import ShardDataModule
from regen_train.model import WanVace, Workload
from regen_train.model.outline import outline_wan_vace
from regen_train.profiling import StepBreakdown, needs_of, remedies_of, write_random_dataset
from regen_train.profiling.room import number_of, room_of
from regen_train.schema import Bucket
from regen_train.training import VaceModule
from regen_train.training.dataset_check import vae_sha256
from regen_train.training.workload import largest_tokens, tokens_of, upkeep_of
from regen_train.training_cli import TrainingCLI

_WARMUP = 2
_SUBCOMMAND = re.compile(r"(?<![\w/.])fit\.(?=(?:model|data|trainer|checkpoint|ema|preview|steps|bucket|free_gib)\b)")
_HELP = f"""usage: regen_train profile --config CONFIG (--bucket FxHxW | --data.path X) [--steps N] [any option of fit]

Prints the memory that training needs by its shapes and which checkpointing policy fits. Where none does, it says what
would and stops, unless model.checkpointing names one to be tried all the same. Then trains for {_WARMUP} steps to warm
up and N more (10), and prints where their time went. Leaves no files behind. With --steps 0, --trainer.devices names
GPUs that need not be here.

  --bucket 49x480x832   random latents of this shape in place of the dataset data.path
  --steps 10            steps to measure; 0 prints the memory and stops: no weights are loaded, and no GPU need be there
  --free_gib 80         GiB free on a card that is not here, in place of this device's; implies --steps 0

One GPU for a configuration of two, without a dataset:
  regen_train profile --config structhuman.yaml --bucket 49x480x832 --trainer.devices 1
    --trainer.accumulate_grad_batches 2
Whether a configuration fits a card of 80 GiB, asked on any machine:
  regen_train profile --config structhuman_14b.yaml --bucket 49x480x832 --steps 0 --free_gib 80

regen_train fit --help shows all other options."""


class ProfileCLI(TrainingCLI):
    """``fit`` for a few steps, with a look at its memory before and its time after."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Have mistakes raised: the usage that is printed otherwise names the commands of another program."""
        return super().init_parser(exit_on_error=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is profiled."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--bucket", type=str | None, default=None, help="shape of random clips, as 49x480x832")
        parser.add_argument("--steps", type=int, default=10, help="steps to measure; 0 for the memory alone")
        parser.add_argument("--free_gib", type=float | None, default=None, help="GiB free on a card that is not here")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Tell a mistake in one line."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            told = " ".join(_SUBCOMMAND.sub("", str(error)).split())
            if "arguments are required" in told:
                told += "; give a whole configuration, such as --config structhuman.yaml, to which others may be added"
            raise ValueError(told) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Take CPUs in place of GPUs that need not be there, where nothing is measured."""
        if not self.config_init["fit"]["steps"]:
            asked = self._get(self.config_init, "trainer")
            devices = number_of(asked["devices"], accelerator=asked["accelerator"])
            kwargs |= {"accelerator": "cpu", "devices": devices}
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        if self.config_init["fit"]["steps"]:
            super()._run_subcommand(subcommand)
        else:
            self.before_fit()

    def before_fit(self) -> None:
        """Print what the run needs, and refuse what does not fit; take what writes files out of the run."""
        super().before_fit()
        config, module, data = self.config_init["fit"], self.model, self.datamodule
        assert isinstance(module, VaceModule)
        assert isinstance(data, ShardDataModule)
        _check(steps=config["steps"], free_gib=config["free_gib"])
        bucket = None if config["bucket"] is None else Bucket.parse(config["bucket"])
        outline = outline_wan_vace(
            module.pretrained,
            dtype=module.base_dtype,
            lora=module.lora,
            trainable=module.trainable,
            revision=module.revision,
            blocks=module.blocks,
        )
        if bucket is None:
            data.setup("validate")  # opens the dataset; the stream is made by the run
            tokens = largest_tokens(data)
        else:
            tokens = tokens_of(data, bucket, outline.geometry)
        self._tell_memory(outline, tokens)
        if bucket is not None and config["steps"]:
            write_random_dataset(
                Path(data.path),
                bucket,
                outline.geometry,
                variants=data.variants.shares,
                num_samples=data.global_batch_size,
                vae_sha256=vae_sha256(module.pretrained, module.revision) or "none",
            )
        callbacks: list[Any] = vars(self.trainer)["callbacks"]
        callbacks[:] = [StepBreakdown(_WARMUP), *(kept for kept in callbacks if not isinstance(kept, Checkpoints))]

    def _tell_memory(self, outline: WanVace, tokens: int) -> None:
        """Print what a process needs.

        Raises:
            ValueError: No policy fits; says what would.
        """
        config, module, data = self.config_init["fit"], self.model, self.datamodule
        room = room_of(
            self.trainer,
            accelerator=config["trainer"]["accelerator"],
            joins=config["steps"] > 0,
            free_gib=config["free_gib"],
        )
        needs = needs_of(
            outline,
            tokens,
            batch_size=data.per_device_batch_size,
            device_type=room.type,
            upkeep=upkeep_of(self.trainer),
        )
        _print(needs.describe(free=room.free, device=room.name, policy=module.checkpointing))
        if module.blocks.compile:
            _print("  compile      what the compiler fuses is not kept, so activations are at most these")
        shortage = None if room.free is None else needs.shortage(room.free)
        if shortage is None or room.free is None:
            return
        workload = Workload(tokens, needs.batch_size, room.free, room.type, upkeep_of(self.trainer))
        remedies = remedies_of(outline, workload, trainer=self.trainer, module=module)
        smaller = "smaller buckets" + " or a smaller data.per_device_batch_size" * (needs.batch_size > 1)
        shortage += f"; what fits, in GiB: {'; '.join([*remedies, smaller])}"
        if not config["steps"] or (module.checkpointing == "auto" and not module.blocks.compile):
            raise ValueError(shortage)
        _print(f"  tried all the same, as it is set: {shortage}")

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
    steps = _value(arguments, "--steps") or ("10" if _value(arguments, "--free_gib") is None else "0")
    with tempfile.TemporaryDirectory(prefix="regen_train_profile_") as folder:
        quiet = [
            *("--steps", steps),
            *("--trainer.max_steps", str(_WARMUP + int(steps)) if steps.isdecimal() else "1"),
            *("--trainer.default_root_dir", f"{folder}/run", "--trainer.logger", "false"),
            *("--trainer.limit_val_batches", "0", "--preview.num_clips", "0"),
        ]
        if _value(arguments, "--bucket") is not None:
            quiet += ["--data.path", f"{folder}/random", "--data.expect", "null"]
            quiet += ["--data.validation.num_samples", "0", "--data.validation.path", "null"]
        ProfileCLI.run(["fit", *arguments, *quiet])


def _check(*, steps: int, free_gib: float | None) -> None:
    faults = []
    if steps < 0:
        faults.append(f"steps must be at least 1, or 0 for the memory alone, got {steps}")
    if free_gib is not None and free_gib <= 0:
        faults.append(f"free_gib must be more than 0, got {free_gib}")
    if free_gib is not None and steps > 0:
        faults.append(
            f"--free_gib asks about a card that is not here, where no steps can be measured; got steps {steps}"
        )
    if faults:
        raise ValueError("; ".join(faults))


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
