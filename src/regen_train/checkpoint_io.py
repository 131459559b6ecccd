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
    """Return the newest whole checkpoint of a run, warning of each torn one that is passed over."""
    for path in reversed(list_checkpoints(folder)):
        if is_whole(path):
            return path
        log.warning("checkpoint %s is torn: passing it over for an older one", path)
    return None


def refuse_earlier_run(folder: Path) -> None:
    """Raise FileExistsError if a folder holds the checkpoints of a run that a new one would write over."""
    existing = list_checkpoints(folder)
    if existing:
        raise FileExistsError(
            f"{folder} holds checkpoints of an earlier run, the newest {existing[-1].name}; continue it with "
            "--ckpt_path last, or choose another folder with --trainer.default_root_dir"
        )
