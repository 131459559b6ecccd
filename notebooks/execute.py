"""Execute the notebooks, from top to bottom, on the output of `regen_train demo`.

python notebooks/execute.py            # and write the new outputs into them
python notebooks/execute.py --check    # and write nothing

The demo's folder is demo_output beside notebooks/, or what the environment variable REGEN_TRAIN_DEMO names.
"""

import argparse
import importlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 400_000
"""Of a notebook: they are kept in git."""
_TIMEOUT = 600
"""Seconds for one cell, and for the kernel to start."""
_ABSOLUTE = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|work|Users|usr|opt|mnt|var|private|srv|data)/|[A-Z]:\\)")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    """Return the notebooks in their order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path) -> Any:
    """Return a notebook with the outputs of a new run.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT,
            startup_timeout=_TIMEOUT,  # on a busy machine
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(FOLDER)}},
            config=_transport(sockets),
        )
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # not which Python it happened to be
    return notebook


def _transport(folder: str) -> Config:
    """Have the kernel spoken to through files that only this user reads, where there are such, not over TCP."""
    return Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}} if os.name == "posix" else {})


def faults(notebook: Any) -> list[str]:
    """Return why outputs should not be shown to others: errors, paths of the machine, none, or too much."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None:
            found.append(f"cell {number} was not executed")
        found += [f"cell {number}: {fault}" for output in cell.outputs for fault in _output_faults(output)]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    if not any(kind.startswith("image/") for output in outputs for kind in output.get("data", {})):
        found.append("it shows no picture")
    size = len(written(notebook).encode())
    if size > MAX_BYTES:
        found.append(f"it has {size:,} bytes, more than {MAX_BYTES:,}: show fewer or smaller pictures")
    return found


def _output_faults(output: Any) -> list[str]:
    if output.output_type == "error":
        return [f"it failed with {output.ename}: {output.evalue}"]
    data = output.get("data", {})
    text = "\n".join([output.get("text", ""), *(data[kind] for kind in data if kind.startswith("text/"))])
    found = [f"an absolute path is shown: {line.strip()[:160]}" for line in text.splitlines() if _is_private(line)]
    if output.get("name") == "stderr":
        found.append(f"a warning is shown: {text.strip()[:160]}")
    return found


def _is_private(line: str) -> bool:
    return str(FOLDER.parent) in line or _ABSOLUTE.search(line) is not None


def written(notebook: Any) -> str:
    """Return a notebook as its file holds it."""
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Execute all notebooks, or those that are named; return 1 if anything is wrong with one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all if none is named")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    _quieten()
    status = 0
    for path in options.paths or notebooks():
        start = time.perf_counter()
        notebook = execute(path)
        found = faults(notebook)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {len(written(notebook)) / 1e3:.0f} kB", flush=True)
        for fault in found:
            print(f"  {fault}", file=sys.stderr, flush=True)
            status = 1
        if not found and not options.check:
            path.write_text(written(notebook), encoding="utf-8")
    return status


def _quieten() -> None:
    """Keep out of the outputs what libraries say on a first start, or without widgets."""
    importlib.import_module("matplotlib.font_manager")  # builds its cache
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"


if __name__ == "__main__":
    sys.exit(main())
