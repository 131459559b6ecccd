"""Single files of weights, from a folder or the Hugging Face hub, and their checksums."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regen_train.files import file_sha256
from regen_train.pretrained import PretrainedFolder


def find_files(
    pretrained: str, files: Sequence[str], *, revision: str | None = None, alternatives: str
) -> PretrainedFolder:
    """Return the folder that holds the named files, downloading them from the hub if need be.

    Args:
        pretrained: A folder with the files, or a hub id OWNER/NAME.
        files: Names of what is needed; nothing else is downloaded.
        revision: Branch, tag or commit on the hub; means nothing for a folder.
        alternatives: What a user may take instead, for the error.

    Raises:
        FileNotFoundError: A file is missing here and cannot be had; says how to get it, and what else there is.
    """
    folder = Path(pretrained).expanduser()
    remedy = f"fetch with `hf download HUB_ID {' '.join(files)} --local-dir FOLDER`; or use {alternatives}"
    if folder.is_dir():
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; {remedy}")
        return PretrainedFolder(folder, folder.resolve().name)
    from huggingface_hub import errors, hf_hub_download

    try:
        paths = [Path(hf_hub_download(pretrained, name, revision=revision)) for name in files]
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{pretrained!r} is gated: accept its licence at https://huggingface.co/{pretrained}, log in with "
            f"`hf auth login`; or use {alternatives}"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{', '.join(files)} of {pretrained!r} is neither in a folder of that name nor in the hub cache, and "
            f"cannot be downloaded ({type(error).__name__}): {remedy.replace('HUB_ID', pretrained)}"
        ) from error
    return PretrainedFolder(paths[0].parent, pretrained, paths[0].parent.name)


def describe_weights(folder: PretrainedFolder, files: Sequence[str]) -> dict[str, Any]:
    """Return name, revision and checksums of weights, for `identity` of a source; reads each file whole, once."""
    checksums = {name: weights_sha256(folder.path / name) for name in files}
    return {"weights": folder.name, "revision": folder.revision, "sha256": checksums}


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of weights; the same file is read once a process, however often it is asked."""
    state = path.stat()
    return _cached_sha256(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _cached_sha256(path: Path, changed: int, size: int) -> str:
    del changed, size  # they are part of what the answer is remembered for
    return file_sha256(path)
