import json
import math
import os
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxr.files import InputError, write_text
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model, weights_file
from models.patch_net import MedicalPatchNet
from models.published import published_keys
from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME
from tests.refusals import refused

LABELS = ("Edema", "Fracture")


@pytest.fixture(scope="module")
def model() -> MedicalPatchNet:
    torch.manual_seed(0)
    return build_model("efficientnet_b0", patch_size=32, image_size=64, labels=LABELS).eval()


@pytest.fixture(scope="module")
def published_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    labels = [f"output {i}" for i in range(14)]
    return published_keys(build_model("efficientnet_b0", patch_size=64, image_size=512, labels=labels).state_dict())


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"tried to connect to {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


# ---------------------------------------------------------------------------------------------------------- what loads


def test_a_saved_folder_comes_back_the_same_in_evaluation_mode_without_a_connection(model, folder, offline):
    loaded = load_model(folder)
    assert not loaded.training
    assert (loaded.backbone, loaded.patch_size, loaded.image_size, loaded.labels) == ("efficientnet_b0", 32, 64, LABELS)
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(loaded(image), model(image))


def test_a_timm_folder_loads_without_a_connection(tmp_path, offline):
    model = build_model("timm/resnet18", patch_size=32, image_size=64, labels=LABELS).eval()
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path)(torch.ones(1, 1, 64, 64)), model(torch.ones(1, 1, 64, 64)))


def test_the_weights_file_in_a_folder_stands_for_the_folder(model, folder):
    assert load_model(folder / WEIGHTS_NAME).patch_size == 32
    assert weights_file(folder) == folder / WEIGHTS_NAME == weights_file(folder / WEIGHTS_NAME)


def test_another_file_beside_a_config_is_not_taken_for_the_folders_own(model, folder, tmp_path):
    """Once the folder's model.safetensors was loaded in its place, in silence."""
    save_file({"other": torch.zeros(1)}, folder / "older.safetensors")
    assert "older.safetensors: neither the published layout" in refused(folder / "older.safetensors")


def test_a_compiled_model_is_saved_under_plain_names(model, tmp_path):
    wrapper = torch.nn.Module()
    wrapper._orig_mod = model  # what torch.compile makes
    save_model(wrapper, tmp_path)
    assert set(load_file(tmp_path / WEIGHTS_NAME)) == set(model.state_dict())


def test_the_hubs_own_reader_takes_a_saved_folder(model, folder, offline):
    hub = MedicalPatchNet.from_pretrained(str(folder))
    image = torch.rand(1, 1, 64, 64)
    assert hub.labels == LABELS and torch.equal(hub.eval()(image), model(image))


def test_a_published_file_may_be_safetensors_too(published_state, tmp_path, offline):
    save_file(published_state, tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", patch_size=512)
    assert loaded.label_set == CHEXPERT and loaded.patch_size == 512
    assert torch.equal(loaded.head.weight, published_state["baseBackbone.classifier.1.weight"])


def test_files_are_written_with_the_rights_that_other_files_get(model, tmp_path):
    before = os.umask(0o027)
    try:
        save_model(model, tmp_path / "saved")
        write_text(tmp_path / "text", "as cxr.files writes it")
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode for path in (tmp_path / "saved").iterdir()}
    assert rights == dict.fromkeys(rights, (tmp_path / "text").stat().st_mode)


def test_wrong_details_are_refused_before_anything_is_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "details", model.details | {"thresholds": {"Edema": 7}})
    with pytest.raises(InputError, match="details, thresholds, Edema: 7 is not a probability"):
        save_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_leaves_the_old_weights(model, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("cxr.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save_model(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_whole_pickled_model_is_refused(model, tmp_path):
    torch.save(model, tmp_path / "w.pt")
    assert "holds more than tensors" in refused(tmp_path / "w.pt", 64)


@pytest.mark.parametrize(
    "content",
    [torch.rand(3), [torch.rand(3)], {"epoch": 3, "weight": torch.rand(3)}, {0: torch.rand(3)}],
    ids=["tensor", "list", "numbers beside tensors", "numbers as names"],
)
def test_files_that_are_no_state_dict_are_told(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert "not a state dict" in refused(tmp_path / "w.pt", 64)


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path):
    assert "no such file or folder of weights" in refused(tmp_path / "nothing.pt")
    assert f"no {CONFIG_NAME} in this folder" in refused(tmp_path)


def test_a_published_file_needs_its_patch_size_told(published_state, tmp_path):
    torch.save(published_state, tmp_path / "w.pt")
    assert "give --patch-size 64 for MedicalPatchNet or 512 for the baseline" in refused(tmp_path / "w.pt")
    assert "patch size 100 does not divide image size 512" in refused(tmp_path / "w.pt", 100)


def test_another_patch_size_than_the_folders_own_is_refused(folder):
    assert "these weights have patch size 32, not 64" in refused(folder, 64)
    assert load_model(folder, patch_size=32).patch_size == 32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"baseBackbone.classifier.1.weight": torch.zeros(5, 1280)}, "5 outputs, where the 14 CheXpert labels"),
        ({"baseBackbone.classifier.1.bias": torch.zeros(13)}, r"'head.bias' has shape (13,), the network needs (14,)"),
        ({"baseBackbone.features.0.0.weight": torch.zeros(32, 3, 3, 3)}, "has shape (32, 3, 3, 3), the network needs"),
        ({"baseBackbone.features.0.0.weight": torch.zeros(64, 1, 3, 3)}, "a stem of 64 channels is neither"),
        (
            {"baseBackbone.features.0.0.weight": torch.zeros(24, 1, 3, 3)},
            "'features.1.1.block.0.0.weight' is missing; found 'features.1.0",
        ),
        ({"baseBackbone.features.0.0.weight": torch.tensor(1.0)}, "the network needs"),
        ({"baseBackbone.classifier.1.weight": torch.tensor(1.0)}, "the network needs"),
        ({"baseBackbone.features.8.0.weight": None}, "tensor 'features.8.0.weight' is missing"),
        ({"optimizer.step": torch.zeros(1)}, "1 tensors that the network does not have, such as 'optimizer.step'"),
        ({"baseBackbone.features.0.0.weight": None}, "neither the published layout"),
    ],
)
def test_weights_of_another_network_are_told_by_their_tensor(change, told, published_state, tmp_path):
    state = {name: tensor for name, tensor in (published_state | change).items() if tensor is not None}
    torch.save(state, tmp_path / "w.pt")
    assert told in refused(tmp_path / "w.pt", 64)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"backbone": "resnet50"}, "unknown backbone 'resnet50'"),
        ({"backbone": 3}, CONFIG_NAME),
        ({"backbone": None}, f"{CONFIG_NAME}, backbone: no such entry"),
        ({"patch_size": "32"}, CONFIG_NAME),
        ({"patch_size": 32.0}, CONFIG_NAME),
        ({"patch_size": 48}, "patch size 48 does not divide image size 64"),
        ({"labels": ["Edema"]}, "'head.weight' has shape (2, 1280) for 1 labels"),
        ({"labels": []}, "label set: labels: expected at least one name"),
        ({"labels": "ab"}, CONFIG_NAME),
        ({"labels": [1, 2]}, CONFIG_NAME),
        ({"labels": ["Edema", "Edema"]}, f"{CONFIG_NAME}: label set: labels: 'Edema' is there twice"),
        ({"labels": 2}, CONFIG_NAME),
        (
            {"labels": ["Edema", "../Edema"]},
            "is not a name; expected printable text",
        ),
        ({"labels": ["Edema", "Ede\nma"]}, "is not a name; expected printable text"),
        ({"backbone": "timm/hf-hub:me/net"}, "unknown backbone 'timm/hf-hub:me/net'"),  # which would ask the hub
        ({"details": [1, 2]}, f"{CONFIG_NAME}, details: a list is not a json object"),
        ({"details": {"thresholds": [0.5]}}, f"{CONFIG_NAME}, details, thresholds: a list is not a json object"),
        *(
            (
                {"details": {"thresholds": {"Edema": value}}},
                f"details, thresholds, Edema: {value!r} is not a probability",
            )
            for value in ("high", 1.5, -0.1, True)
        ),
        ({"details": {"grey": {"rule": "loud"}}}, f"{CONFIG_NAME}, details, grey"),
        ({"details": {"grey": 3}}, f"{CONFIG_NAME}, details, grey: 3 is not a json object"),
        ({"details": {"licence": 3}}, "details, licence: 3 is not a text"),
        (
            {"details": {"classification": [{"label": "Edema"}]}},
            "details, classification, row 0: expected value, ci_low, ci_high",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_told_by_its_entry(change, told, folder):
    config = json.loads((folder / CONFIG_NAME).read_text()) | change
    (folder / CONFIG_NAME).write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    assert told in refused(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_thresholds_that_are_not_numbers_are_refused_when_saving(value, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "details", model.details | {"thresholds": {"Edema": value}})
    with pytest.raises(InputError, match=f"details, thresholds, Edema: {value} is not a probability"):
        save_model(model, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"backbone"', "\xff"])
def test_a_config_that_is_no_json_object_is_told(text, folder):
    (folder / CONFIG_NAME).write_text(text, encoding="latin-1")
    assert CONFIG_NAME in refused(folder)
