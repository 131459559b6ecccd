"""The command line: fit, validate, test and profile by LightningCLI; export, anonymize and demo as plain functions."""

import logging
import os
import sys
import warnings

from regen_train.console import shown_log

COMMANDS = {
    "fit": "train a LoRA: regen_train fit --config structhuman.yaml [--ckpt_path last] [--trainer.devices 8] ...",
    "profile": "memory before a run, time after ten steps: regen_train profile --config X [--bucket 49x480x832]",
    "validate": "loss on the held-out clips at fixed noise: regen_train validate --config X --ckpt_path last",
    "test": "the same, logged under the name test; data.validation.path names a dataset of its own",
    "export": "weights for other tools: regen_train export --checkpoint runs/x/last.ckpt --output exported",
    "anonymize": "other people in a video: regen_train anonymize --input in.mp4 --output out.mp4 --variant X ...",
    "demo": "the whole way with a toy, on CPU: from drawn clips to anonymized ones, a table and a page",
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one line and exit status 1, set REGEN_TRAIN_DEBUG=1 for the traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    if arguments[0] == "--version":
        import regen_train

        print(regen_train.__version__)
        return
    if arguments[0] not in COMMANDS:
        print(_usage(), file=sys.stderr)
        raise SystemExit(f"regen_train: no command {arguments[0]!r}; the commands are {', '.join(COMMANDS)}")
    _hush_libraries()
    try:
        with shown_log():
            _run(arguments[0], arguments[1:])
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("REGEN_TRAIN_DEBUG"):
            raise
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        raise SystemExit(f"regen_train {arguments[0]}: {error}\n(REGEN_TRAIN_DEBUG=1 shows the traceback)") from error


def _hush_libraries() -> None:
    # DDP warns on every process that find_unused_parameters costs time; here it is what makes a resume exact
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    lightning_log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    lightning_log.addFilter(lambda record: "Tip:" not in record.getMessage())  # an advertisement
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # Lightning with newer torch
    # FSDP2 of what would go wrong if the velocity were changed in place, which it is not
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: regen_train COMMAND [--help] ...\n\n{rows}"


def _run(command: str, arguments: list[str]) -> None:
    if command == "export":
        from regen_train.export_cli import main as export

        export(arguments)
    elif command == "anonymize":
        from regen_train.anonymize_cli import main as anonymize

        anonymize(arguments)
    elif command == "demo":
        from jsonargparse import auto_cli

        from regen_train.demo import run_demo

        auto_cli(run_demo, args=arguments, as_positional=False)
    elif command == "profile":
        from regen_train.profile_cli import main as profile

        profile(arguments)
    else:
        from regen_train.configs import resolve_arguments
        from regen_train.training_cli import TrainingCLI

        TrainingCLI.run([command, *resolve_arguments(arguments)])
