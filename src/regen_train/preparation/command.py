"""What the scripts of data_prep share: their options, the encoding stage behind them, and the report at the end."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser

from regen_train.console import shown_log
from regen_train.encoders import load_encoders
from regen_train.preparation.pack import check_output, pack_dataset
from regen_train.preparation.prepare import EncodeReport, Sources, encode_clips
from regen_train.preparation.salt import load_salt
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import Verdict
from regen_train.preparation.work import WorkFolder
from regen_train.shards.dataset import INFO_NAME


@dataclass(frozen=True)
class EncodeOptions:
    """Where clips come from, which model encodes them, where samples go.

    Args:
        clips: Folder of video files.
        output: The dataset's folder.
        pretrained: The model to be trained: a diffusers folder or a hub id.
        signals: Folder of signals, one folder a clip, named like it without suffix. Default: CLIPS/signals.
        work: Folder of encoded samples that wait for packing. Default: OUTPUT/.work.
        salt_file: The secret from which samples' keys are made; created if missing, and never inside the dataset.
            Default: ~/.config/regen_train/salt.
        revision: Branch, tag or commit of a hub id.
        device: Where the encoders run; auto takes a GPU if there is one.
        dtype: Precision of the text encoder; the VAE always runs in fp32.
        tiling: Encode in overlapping tiles, for GPUs with little memory; slower, and not quite the same latents.
        engine: How the work is spread; local is one process.
    """

    clips: Path
    output: Path
    pretrained: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    signals: Path | None = None
    work: Path | None = None
    salt_file: Path | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["bf16", "fp32"] = "bf16"
    tiling: bool = False
    engine: Literal["local"] = "local"


@dataclass(frozen=True)
class PackOptions:
    """Where samples come from and how they are cut into shards.

    Args:
        output: The dataset's folder.
        work: Folder of encoded samples. Default: OUTPUT/.work.
        max_shard_bytes: A shard ends before the sample that would make it larger.
    """

    output: Path
    work: Path | None = None
    max_shard_bytes: int = 1 << 30


def parse_options(prog: str, description: str, kinds: Sequence[type], args: Sequence[str] | None) -> tuple[Any, ...]:
    """Return one instance of each dataclass in ``kinds``, from flags and ``--config`` files; exits on wrong input.

    Args:
        prog: The command's name.
        description: What it does.
        kinds: Dataclasses whose fields become flags; a field of two of them is one flag.
        args: The command line; None takes the process's own.
    """
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    if EncodeOptions in kinds:
        parser.add_argument(
            "--resume", action="store_true", help="Accepted for clarity: a run always does only what is missing."
        )
    taken: set[str] = set()
    for kind in kinds:
        parser.add_class_arguments(kind, skip=taken)
        taken |= {field.name for field in dataclasses.fields(kind)}
    config = parser.parse_args(args)
    try:
        return tuple(kind(**{field.name: config[field.name] for field in dataclasses.fields(kind)}) for kind in kinds)
    except ValueError as error:
        parser.error(str(error))
        raise  # not reached: the line above exits


def encode_with(options: EncodeOptions, settings: DatasetSettings) -> EncodeReport:
    """Load the encoders, encode what is missing, and print what became of every clip; the caller holds the lock.

    Raises:
        FileNotFoundError: There is no such model, or there are no clips.
        ValueError: The settings do not fit the model or the clips.
    """
    check_output(options.output)
    salt = load_salt(options.salt_file, dataset=options.output)
    encoders = load_encoders(
        options.pretrained,
        dtype=options.dtype,
        device=pick_device(options.device),
        revision=options.revision,
        tiling=options.tiling,
    )
    signals = options.clips / "signals" if options.signals is None else options.signals
    report = encode_clips(Sources(options.clips, signals, work_folder(options), salt), settings, encoders)
    spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in report.seconds.items())
    print(f"{format_verdicts(report.verdicts)}\n{_count(report.made, 'sample')} encoded, {report.kept} kept; {spent}")
    if not report.num_samples:
        older = f"; the one at {options.output} stays as it was" if (options.output / INFO_NAME).is_file() else ""
        print(f"no dataset was written: no clip was fit{older}")
    return report


def pack_with(options: PackOptions) -> None:
    """Pack the work folder and print what came out; the caller holds the lock."""
    info = pack_dataset(work_folder(options), options.output, max_shard_bytes=options.max_shard_bytes)
    buckets = ", ".join(f"{count} of {bucket}" for bucket, count in info.buckets.items())
    print(f"{options.output}: {_count(info.num_samples, 'sample')} ({buckets}) in {_count(len(info.shards), 'shard')}")
    print(f"conditions {', '.join(info.conditions)}; fingerprint {info.fingerprint}")


def pick_device(device: str) -> str:
    """Return the device that ``auto`` stands for, or the device named."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def work_folder(options: EncodeOptions | PackOptions) -> WorkFolder:
    """Return the folder where encoded samples wait."""
    return WorkFolder(options.output / ".work" if options.work is None else options.work)


@contextlib.contextmanager
def told_in_words(prog: str) -> Iterator[None]:
    """Show progress, and end without a traceback: wrong input with its message and code 2, Ctrl-C with code 130."""
    try:
        with shown_log():
            yield
    except (ValueError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None  # as a shell counts it: 128 and the number of SIGINT


def format_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return the table of all clips: name, verdict, reason."""
    rows = [(v.clip, "used" if v.used else "REFUSED", v.reason) for v in sorted(verdicts, key=lambda v: v.clip)]
    wide = [max(len(row[column]) for row in [("clip", "verdict", ""), *rows]) for column in (0, 1)]
    lines = [f"{clip:{wide[0]}}  {verdict:{wide[1]}}  {reason}" for clip, verdict, reason in rows]
    return "\n".join([f"{'clip':{wide[0]}}  {'verdict':{wide[1]}}  reason", *lines])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
