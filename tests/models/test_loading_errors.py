"""Weights that cannot be used: one line that names the file, and nothing of theirs is run."""

import pickle

import pytest
import torch

from models.checkpoint import PUBLISHED_LABELS, build_model, load_model, save_model
from models.errors import WeightsError

SIZES = {"patch_size": 32, "image_size": 64, "labels": PUBLISHED_LABELS}


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refuse(path, message, **options):
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(build_model("timm/test_efficientnet", **SIZES), tmp_path / "weights")
    return tmp_path / "weights"


def published(tmp_path, stem=32, outputs=14):
    state = {"baseBackbone.features.0.0.weight": torch.zeros(stem, 1, 3, 3)}
    state |= {"baseBackbone.classifier.1.weight": torch.zeros(outputs, 1280)}
    torch.save(state, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_saved_folder_comes_back_the_same(folder):
    again = load_model(folder)
    torch.manual_seed(0)
    first = build_model("timm/test_efficientnet", **SIZES).eval()
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(again(image), first(image))
    assert again.labels == PUBLISHED_LABELS
    assert not again.training


def test_weights_of_another_shape(folder, tmp_path):
    other = build_model("timm/test_efficientnet", **SIZES | {"labels": ("Edema", "Fracture")})
    save_model(other, tmp_path / "other")
    (tmp_path / "other/config.json").write_text((folder / "config.json").read_text())
    refuse(tmp_path / "other", r"tensor 'head.weight' has shape \(2, \d+\), the network needs \(14, \d+\)")


def test_published_files_that_do_not_fit(tmp_path):
    refuse(published(tmp_path), "does not carry its patch size; give --patch-size 64")
    refuse(published(tmp_path), "tensor .* is missing", patch_size=64)
    refuse(published(tmp_path, stem=7), "a stem of 7 channels", patch_size=64)
    refuse(published(tmp_path, outputs=5), "5 outputs", patch_size=64)


def test_another_patch_size_than_the_folders_is_refused(folder):
    refuse(folder, "have patch size 32, not 64", patch_size=64)


def test_missing_truncated_and_foreign_files(folder, tmp_path):
    refuse(tmp_path / "nowhere", "no such file or folder")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_model(folder)
    torch.save([1, 2], tmp_path / "list.pt")
    refuse(tmp_path / "list.pt", "not a state dict", patch_size=64)
    cut = published(tmp_path)
    cut.write_bytes(cut.read_bytes()[:300])
    refuse(cut, "damaged", patch_size=64)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_code_in_a_pickle_is_never_run(tmp_path, name):
    canary = tmp_path / "canary"
    if name.endswith(".pt"):
        torch.save({"weight": Canary(canary)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Canary(canary)))
    refuse(tmp_path / name, "holds more than tensors|not a readable safetensors", patch_size=64)
    assert not canary.exists()
