"""Where a configuration named on the command line lies."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_FOLDERS = (_PACKAGE / "shipped_configs", _PACKAGE.parents[1] / "configs")  # in a wheel; in a checkout


def shipped_configs() -> dict[str, Path]:
    """Return the shipped configurations by file name."""
    return {path.name: path for folder in reversed(_FOLDERS) for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """Find a configuration: a path, or a bare name in the working folder, then among the shipped ones.

    Raises:
        FileNotFoundError: There is none; the message lists the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if path.parent == Path() and path.name in shipped:
        return shipped[path.name]
    raise FileNotFoundError(f"no configuration {name!r}; the shipped ones are {', '.join(sorted(shipped))}")


def resolve_arguments(arguments: list[str]) -> list[str]:
    """Replace each ``--config NAME`` of a command line by the path it means."""
    resolved: list[str] = []
    for argument in arguments:
        if resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(str(find_config(argument)))
        elif argument.startswith("--config="):
            resolved.append(f"--config={find_config(argument.removeprefix('--config='))}")
        else:
            resolved.append(argument)
    return resolved
