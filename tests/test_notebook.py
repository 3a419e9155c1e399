"""docs/python.ipynb says what is true: its cells run, and print what it shows."""

import ast
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
from test_docs import same_figures

import cnntrain
from cnntrain import cli
from cnntrain.cli import dispatch

NOTEBOOK = documents.ROOT / "docs" / "python.ipynb"
NAMES = {"cnntrain": cnntrain, "network": cnntrain.Classifier, "answer": cnntrain.Prediction}


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def text(cell: dict[str, Any]) -> str:
    """What a cell has printed and answered, without its figures."""
    parts = [output.get("text") or output["data"]["text/plain"] for output in cell["outputs"]]
    return same_figures("".join(line for part in parts for line in part))


def test_the_cells_compile_and_use_what_is_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given: 0)
    seen = set()
    for cell in code_cells():
        source = "".join(cell["source"])
        for command in re.findall(r"^!.*?cnntrain (.*?)(?: 2>&1| \||$)", source, re.MULTILINE):
            assert cli.main(command.split()) == 0
            seen.add(command)
        for node in ast.walk(ast.parse(re.sub(r"^!.*$", "", source, flags=re.MULTILINE))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NAMES:
                owner = NAMES[node.value.id]
                assert hasattr(owner, node.attr) or node.attr in getattr(owner, "__dataclass_fields__", {})
                seen.add(node.attr)
    assert seen > {"load", "prepare", "model", "classes", "label", "trainer.epochs=10 out=run"}


def test_the_notebook_is_small_and_links_to_pages_that_are_there() -> None:
    assert NOTEBOOK.stat().st_size < 20_000
    for link in re.findall(r"\]\(([^)\s]+)\)", NOTEBOOK.read_text(encoding="utf-8")):
        assert (NOTEBOOK.parent / link).is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_cells_run_and_print_what_the_notebook_shows(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(here)}}).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = code_cells()
    assert len(ran) == len(shown)
    for cell, before in zip(ran, shown, strict=True):
        assert text(cell) == text(before)
