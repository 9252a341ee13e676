"""The notebook runs from its first cell to its last, on films that the demo drew, with one epoch."""

import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def test_the_quickstart_runs_and_its_patches_add_up(demo_clone, tmp_path, monkeypatch):
    shutil.copytree(demo_clone / "demo/data", tmp_path / "data")  # it would draw the same films
    for name, value in {"QUICKSTART_DIR": str(tmp_path), "PATIENTS": "40", "EPOCHS": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "notebooks/quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output
    )
    assert "sum of the 16 patches' contributions" in printed
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
