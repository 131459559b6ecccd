"""Checkpoint files: written whole or not at all, read without pickle, found again after a crash."""

import logging
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from regen_train.files import whole_file

log = logging.getLogger(__name__)

NAME = "step-{step:06d}.ckpt"
_PATTERN = re.compile(r"step-(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, syncs it to the disk and renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole, or leave what was there.

        Raises:
            OSError: The file could not be written; the message says what is intact and how to go on.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
            raise OSError(
                f"could not write checkpoint {path}: {error}; earlier checkpoints in {path.parent} are intact: "
                "free some space and continue with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; never unpickles anything but tensors and plain types.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is torn or not a checkpoint.
        """
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with ``weights_only=True``; raises as `AtomicCheckpointIO.load_checkpoint`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if not is_whole(path):
        raise ValueError(f"{path}: is torn or not a checkpoint; take an earlier one (--ckpt_path last finds it)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"{path}: holds more than tensors and plain values; it is not read, for that could run code of its maker's"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} is no training checkpoint: it holds no state_dict")
    return content


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's archive is complete and every checksum in it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest step first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.ckpt") if (match := _PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def find_last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, warning of each torn one that is passed over.

    Raises:
        ValueError: There are checkpoints, and all are torn.
    """
    checkpoints = list_checkpoints(folder)
    for path in reversed(checkpoints):
        if is_whole(path):
            return path
        log.warning("checkpoint %s is torn: passing it over for an older one", path)
    if checkpoints:
        raise ValueError(f"all checkpoints in {folder} are torn; move them away to start at step 0")
    return None


def refuse_other_run(folder: Path, *, continued_from: str | Path | None) -> None:
    """Refuse to write among checkpoints that the new run does not continue.

    Args:
        folder: Of the new run.
        continued_from: The checkpoint it resumes from, None for a start at step 0.

    Raises:
        FileExistsError: The folder holds whole checkpoints that are no predecessors of the one continued.
    """
    existing = list_checkpoints(folder)
    if continued_from is None and existing:
        raise FileExistsError(
            f"{folder} holds checkpoints of an earlier run, the newest {existing[-1].name}; continue it with "
            "--ckpt_path last, or choose another folder with --trainer.default_root_dir"
        )
    start = Path(continued_from).resolve() if continued_from is not None else None
    steps = [path.resolve() for path in existing]
    newer = steps[steps.index(start) + 1 :] if start in steps else steps
    whole = [path.name for path in newer if is_whole(path)]
    if whole:
        raise FileExistsError(
            f"{folder} holds {', '.join(whole)}, which {continued_from} does not lead to; continue with "
            "--ckpt_path last, move them away, or choose another folder with --trainer.default_root_dir"
        )
