"""Files not to trust: refused in one line, nothing of theirs is run, and there is no way to ask for it."""

from __future__ import annotations

import ast
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import cli
from convertWeights import main
from models.checkpoint import build_model, save_model
from tests.refusals import refused


class Canary:
    """Runs a command when it is unpickled by anything that obeys a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile_files(folder: Path, canary: Path) -> dict[str, Path]:
    """Files that would create `canary`, lie about their size, or end too early."""
    files = {name: folder / name for name in ("zip.pt", "legacy.pt", "pickle.safetensors", "pickle.pt", "cut.pt")}
    files |= {name: folder / name for name in ("cut.safetensors", "header.safetensors", "huge.safetensors", "text.pt")}
    torch.save({"w": Canary(canary)}, files["zip.pt"])
    torch.save({"w": Canary(canary)}, files["legacy.pt"], _use_new_zipfile_serialization=False)
    files["pickle.safetensors"].write_bytes(pickle.dumps({"w": Canary(canary)}))
    files["pickle.pt"].write_bytes(pickle.dumps(Canary(canary)))
    good = folder / "good"
    save_model(build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("A",)), good)
    torch.save(torch.zeros(50_000), folder / "whole.pt")
    files["cut.pt"].write_bytes((folder / "whole.pt").read_bytes()[:100_000])
    files["cut.safetensors"].write_bytes((good / "model.safetensors").read_bytes()[:-100])
    files["header.safetensors"].write_bytes(struct.pack("<Q", 2**62) + b"{}")
    header = b'{"w": {"dtype": "F32", "shape": [%d], "data_offsets": [0, %d]}}' % (2**40, 2**42)
    files["huge.safetensors"].write_bytes(struct.pack("<Q", len(header)) + header)
    files["text.pt"].write_text("<html>Not found</html>")
    return files


def test_hostile_and_damaged_files_are_refused_in_one_line(tmp_path, capsys, recwarn):
    canary = tmp_path / "canary"
    for name, path in hostile_files(tmp_path, canary).items():
        assert cli.guarded(main, ["convert", str(path), str(tmp_path / "out"), "--patch-size", "64"]) == 2, name
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: ") and error.count("\n") == 1, name
        assert not canary.exists(), name
        assert not (tmp_path / "out").exists(), name
    assert not recwarn.list  # which would be further lines


def test_the_canary_works_where_a_pickle_is_obeyed(tmp_path):
    """Otherwise the test above could not fail."""
    canary = tmp_path / "canary"
    files = hostile_files(tmp_path, canary)
    torch.load(files["zip.pt"], weights_only=False)
    assert canary.exists()
    with zipfile.ZipFile(files["zip.pt"]) as archive:
        assert b"mkdir" in archive.read("zip/data.pkl")


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_told_in_one_line_wherever_they_are_cut(legacy, tmp_path):
    path = tmp_path / "w.pt"
    small = {"baseBackbone.classifier.1.weight": torch.rand(14, 4), "baseBackbone.features.0.0.weight": torch.rand(32)}
    torch.save(small, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    draw = random.Random(0)
    for cut in [0, 1, 2, 10, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:cut])
        assert refused(path, 64)
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(5):
            broken[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(broken)
        assert refused(path, 64)  # what survives the damage is still no network


def test_there_is_no_way_to_ask_for_unsafe_loading():
    root = Path(__file__).resolve().parents[2]
    sources = [path for path in root.rglob("*.py") if not {"tests", ".venv"} & set(path.relative_to(root).parts)]
    calls = [node for path in sources for node in ast.walk(ast.parse(path.read_text())) if is_torch_load(node)]
    assert calls
    assert all({"weights_only": True}.items() <= literal_keywords(call).items() for call in calls)


def is_torch_load(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"


def literal_keywords(call: ast.Call) -> dict:
    return {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
