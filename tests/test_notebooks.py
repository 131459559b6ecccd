"""The notebooks as they are kept: whole, with pictures, fit to be shown; .ci/run executes them anew."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def execute() -> Iterator[ModuleType]:
    """The script that executes the notebooks."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("execute")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("execute", None)


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def trees(notebook: Any) -> Iterator[ast.Module]:
    return (ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code")


def test_all_are_executed(execute: ModuleType) -> None:
    assert execute.notebooks() == NOTEBOOKS
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_can_be_shown(path: Path, execute: ModuleType) -> None:
    notebook = read(path)
    assert execute.faults(notebook) == []
    assert notebook.metadata == execute.METADATA
    assert execute.written(notebook) == path.read_text(encoding="utf-8")
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # from top to bottom, in one go


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cells_say_what_is_needed(path: Path) -> None:
    first, second = read(path).cells[:2]
    for needed in ("make demo", "REGEN_TRAIN_DEMO", "toy"):
        assert needed in first.source
    assert "open_demo()" in second.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_are_public_names(path: Path) -> None:
    """A name that was renamed or made private breaks the notebook; this finds it without running it."""
    seen = 0
    for tree in trees(read(path)):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regen_train"):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("_")]
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
                seen += len(node.names)
    assert seen > 2


def test_a_demo_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("REGEN_TRAIN_DEMO", str(tmp_path))
    showing = importlib.import_module("showing")
    with pytest.raises(FileNotFoundError, match=r"lacks report\.json, dataset, .*run `make demo` first"):
        showing.open_demo()
    (tmp_path / "report.json").touch()
    for folder in ("dataset", "run/structhuman", "exported/structhuman"):
        (tmp_path / folder).mkdir(parents=True)
    assert showing.open_demo().path == tmp_path


OUTPUTS = {
    "an absolute path": nbformat.v4.new_output("stream", name="stdout", text="lies in /home/somebody/demo_output"),
    "a warning": nbformat.v4.new_output("stream", name="stderr", text="UserWarning: old"),
    "failed with ValueError": nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]),
}


@pytest.mark.parametrize("fault", OUTPUTS)
def test_unfit_outputs_are_named(fault: str, execute: ModuleType) -> None:
    picture = nbformat.v4.new_output("display_data", data={"image/png": "aGVsbG8="})
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[picture])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert execute.faults(notebook) == []
    cell.outputs.append(OUTPUTS[fault])
    assert [found for found in execute.faults(notebook) if fault in found]


def test_notebooks_that_show_nothing_or_too_much_are_named(execute: ModuleType) -> None:
    cell = nbformat.v4.new_code_cell("1")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert execute.faults(notebook) == ["cell 0 was not executed", "it shows no picture"]
    cell.execution_count = 1
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "A" * execute.MAX_BYTES})]
    (fault,) = execute.faults(notebook)
    assert "show fewer or smaller pictures" in fault
