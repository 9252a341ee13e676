"""Files not to trust: refused in one line, nothing of theirs is run, and there is no way to ask for it."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import cli
from convertWeights import main
from cxr.files import InputError
from models.backbones import MAX_PARAMETERS, build_backbone
from models.checkpoint import build_model, save_model
from models.weights_folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
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


# ------------------------------------------------------------------------------------------------------- config.json


@pytest.fixture
def folder(tmp_path):
    save_model(build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("A", "B")), tmp_path / "w")
    return tmp_path / "w"


def configured(folder: Path, **changes: object) -> Path:
    """The folder with other entries in its config.json."""
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(config | changes))
    return folder


DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5_000
NESTED = json.loads("[" * 50 + "]" * 50)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        DEEP.replace("[", '{"a": ').replace("]", "}"),
        '{"backbone": ' + DEEP + "}",
        '{"image_size": ' + DIGITS + "}",
        '{"backbone": "efficientnet_b0", "patch_size": 1' + "0" * 4_000 + ', "image_size": 64, "labels": ["A", "B"]}',
        '{"patch_size": 1e999}',
        "\x00",
    ],
    ids=["lists", "objects", "entry", "digits", "4,000 digits", "infinite", "zero byte"],
)
def test_json_that_ends_a_reader_is_refused_in_one_line(text, folder, capsys):
    (folder / CONFIG_NAME).write_text(text)
    assert CONFIG_NAME in refused(folder)
    assert cli.guarded(main, ["describe", str(folder), "--results", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_size": 100_000, "patch_size": 100_000}, "larger than the largest supported, 4096 px"),
        ({"image_size": 10**30, "patch_size": 10**30}, "larger than the largest supported, 4096 px"),
        ({"image_size": 4096, "patch_size": 1}, "16777216 patches per image are more than 16384"),
        ({"image_size": 0, "patch_size": 64}, "patch size 64 does not divide image size 0"),
        ({"image_size": -64, "patch_size": 32}, "does not divide image size -64"),
        ({"image_size": True}, f"{CONFIG_NAME}, image_size: True is not a whole number"),
        ({"labels": ["A"] * 1001}, "at most 1000 names"),
        ({"labels": ["A", "B" * 101]}, "at most 1000 names of 100 characters"),
        ({"labels": ["A", NESTED]}, "at most 1000 names of 100 characters"),
        ({"labels": ["A", "\x1b[2J"]}, "is not a name"),
        ({"label_set": {"groups": NESTED}}, "label set: "),
        ({"label_set": {"groups": {"first": ["C"]}}}, "groups or tasks name 'C'"),
        ({"label_set": {"tasks": {"A": "X", "B": "X"}}}, "'X' is there twice"),
        ({"label_set": 3}, f"{CONFIG_NAME}, label_set: 3 is not a json object"),
        ({"aggregation": "median"}, "unknown aggregation 'median'; known are mean, position, gate, noisy_or"),
        ({"aggregation": NESTED}, f"{CONFIG_NAME}, aggregation: a list is not a text"),
        ({"aggregation": None}, f"{CONFIG_NAME}, aggregation: None is not a text"),
        ({"backbone": "timm/" + "x" * 10_000}, "unknown backbone 'timm/xxx"),
        ({"backbone": "../../timm/resnet18"}, "unknown backbone"),
        ({"backbone": "timm/\x1b[31m"}, "unknown backbone 'timm/\\x1b[31m'"),
        ({"details": {"training_data": {"a": NESTED}}}, "details: nested more than 10 deep"),
        ({"details": {"classification": [{"value": 10**90, "ci_low": 0, "ci_high": 1}]}}, "a number or null"),
        ({"details": {"classification": NESTED}}, "details: nested more than 10 deep"),
        ({"details": {"thresholds": {"A\n": 10**90}}}, "details, thresholds, A\\n: a number of "),
    ],
)
def test_a_config_of_odd_kinds_and_sizes_is_refused_in_one_line(changes, told, folder):
    assert told in refused(configured(folder, **changes))


def peak() -> int:
    """The most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit_giant_patch14_224", "does not end in average pooling and one linear layer"),
        ("resnetv2_152x4_bit", "does not end in average pooling and one linear layer"),
        ("regnety_1280", "has 645 million parameters; choose a network of at most 300 million"),
    ],
)
def test_large_backbones_are_refused_before_they_take_memory(name, told, folder):
    before = peak()
    assert told in refused(configured(folder, backbone=f"timm/{name}"))
    with pytest.raises(InputError, match=told):
        build_backbone(f"timm/{name}")
    assert peak() - before < 200, "MiB; the smallest of them holds 2,500"
    assert MAX_PARAMETERS * 4 < 2**31


def test_a_mutated_config_loads_or_is_refused_in_one_line(folder):
    whole = (folder / CONFIG_NAME).read_bytes()
    draw = random.Random(0)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        (folder / CONFIG_NAME).write_bytes(broken)
        try:
            outcomes.add(bool(refused(folder)))
        except pytest.fail.Exception:  # loaded: the damage hit a text
            outcomes.add(False)
    assert outcomes == {True, False}


def test_nothing_is_written_through_a_link_in_place_of_a_temporary_file(folder, tmp_path):
    """The name of a temporary file could once be foreseen; a link there let another file be overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
        (folder / f".{name}.{os.getpid()}.tmp").symlink_to(victim)
    save_model(build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("A", "B")), folder)
    assert victim.read_text() == "kept"
    links = {path.name for path in folder.iterdir() if path.is_symlink()}
    assert {path.name for path in folder.iterdir()} - links == {CONFIG_NAME, WEIGHTS_NAME, CARD_NAME}
