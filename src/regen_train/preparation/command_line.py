"""The command lines of data_prep: options from flags and files, and an end in words."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jsonargparse import ArgumentParser

from regen_train import detectors as detector_classes
from regen_train import signals as signal_classes
from regen_train.console import shown_log
from regen_train.guard import GuardSettings
from regen_train.preparation.extract import Extractors
from regen_train.preparation.options import EngineOptions, ModelOptions, RayOptions, SecondOpinions, SourceOptions
from regen_train.preparation.probe import ProbeSettings
from regen_train.preparation.settings import DatasetSettings

CLASS_PATHS = {name: f"{room.__name__}.{name}" for room in (signal_classes, detector_classes) for name in room.__all__}
"""What --masks, --people and so on may be called without naming a module."""

GROUPS: dict[type, str] = {GuardSettings: "guard", RayOptions: "ray"}
"""Options that are a group of their own, such as ``--guard.when_absent``; all others stand by themselves."""

STAGES = (SourceOptions, EngineOptions, RayOptions, ProbeSettings, Extractors)
ENCODING = (ModelOptions, SecondOpinions, GuardSettings, DatasetSettings)


def parse_options(
    prog: str,
    description: str,
    kinds: Sequence[type],
    args: Sequence[str] | None,
    groups: Mapping[type, str] = GROUPS,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> dict[type, Any]:
    """Return one instance of each dataclass in ``kinds``, from flags and ``--config`` files; exits on wrong input.

    Args:
        prog: The command's name.
        description: What it does.
        kinds: Dataclasses whose fields become flags; a field of two of them is one flag.
        args: The command line; None takes the process's own.
        groups: Dataclasses whose flags have a prefix, and which.
        defaults: By flag, where this command's are not the dataclasses' own.
    """
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    if SourceOptions in kinds:
        parser.add_argument(
            "--resume", action="store_true", help="Accepted for clarity: a run always does only what is missing."
        )
        parser.add_argument(
            "--review",
            action="store_true",
            help="Put doubtful windows aside in WORK/quarantine, with pictures and a list in which you release them.",
        )
    taken: set[str] = {"review"}
    for kind in kinds:
        group = groups.get(kind)
        parser.add_class_arguments(kind, group, skip=set() if group else taken)
        taken |= set() if group else {field.name for field in dataclasses.fields(kind)}
    parser.set_defaults(dict(defaults))
    config = parser.parse_args(_with_paths(sys.argv[1:] if args is None else args))
    try:
        built = parser.instantiate(config)
        return {kind: _instance(kind, built, groups.get(kind)) for kind in kinds}
    except ValueError as error:
        parser.error(str(error))
        raise  # not reached: the line above exits


def _with_paths(args: Sequence[str]) -> list[str]:
    """Write out the names of our own classes: jsonargparse finds subclasses by name, and these follow a protocol."""
    flags = {field.name for kind in (Extractors, SecondOpinions) for field in dataclasses.fields(kind)}
    written: list[str] = []
    for word in args:
        flag, equals, value = word.rpartition("=")
        flag = flag if equals else written[-1] if written else ""
        names_class = flag.startswith("--") and flag.removeprefix("--").split(".")[-1] in flags
        written.append(flag * bool(equals) + equals + CLASS_PATHS.get(value, value) if names_class else word)
    return written


def _instance(kind: type, built: Any, group: str | None) -> Any:
    if group is not None:
        return built[group]
    return kind(**{field.name: built[field.name] for field in dataclasses.fields(kind)})


def pick_device(device: str) -> str:
    """Return the device that ``auto`` stands for, or the device named."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


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
