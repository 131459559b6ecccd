"""Everything or nothing: files get their final names only once all of them are written and checked."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from regen_train.files import sync


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a hidden folder inside ``output``; what lies in it at the end moves up, replacing what has its name.

    If the body raises, the hidden folder is removed and ``output`` is as it was before.

    Args:
        output: Made if it is missing.

    Yields:
        The folder to write into.

    Raises:
        ValueError: ``output`` is a file, or lies in one.
    """
    require_folder(output)
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    output.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".export-", dir=output) as name:
            folder = Path(name, "new")
            folder.mkdir()
            yield folder
            _settle(folder)
            for entry in sorted(folder.iterdir()):
                _replace(entry, output / entry.name, aside=Path(name, f"old-{entry.name}"))
            sync(output)
    except BaseException:
        with suppress(OSError):  # what went wrong above is the error to report
            for folder in missing:
                folder.rmdir()
        raise


def require_folder(output: Path) -> None:
    """Refuse an output that is no folder and cannot become one.

    Raises:
        ValueError: It is a file, or lies in one.
    """
    existing = next((path for path in (output, *output.parents) if path.exists()), None)
    if existing is not None and not existing.is_dir():
        raise ValueError(f"output must be a folder, got the file {existing}")


def _settle(folder: Path) -> None:
    """Make files readable like any other (safetensors lets only the owner read) and bring them to the disk."""
    sample = folder / ".mode"
    sample.touch()
    mode = sample.stat().st_mode
    sample.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
        sync(path)


def _replace(new: Path, final: Path, *, aside: Path) -> None:
    if final.is_dir():
        final.rename(aside)  # a folder that holds files cannot be replaced in one step
    new.replace(final)
