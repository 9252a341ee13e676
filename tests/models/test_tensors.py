"""State dicts as wrappers and other tools save them: loaded where unambiguous, else one line says what was found."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cxr.files import InputError
from models.checkpoint import build_model, load_model, save_model
from models.patch_net import MedicalPatchNet
from models.published import published_keys
from models.tensors import plain_names
from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME
from tests.refusals import refused

LABELS = tuple(f"output {i}" for i in range(14))


@pytest.fixture(scope="module")
def small() -> MedicalPatchNet:
    torch.manual_seed(0)
    return build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("A", "B")).eval()


@pytest.fixture
def folder(small, tmp_path):
    save_model(small, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return published_keys(build_model("efficientnet_b0", patch_size=64, image_size=512, labels=LABELS).state_dict())


def rewrite(folder, change) -> None:
    """Replaces the folder's tensors by what `change` makes of them."""
    save_file(change(load_file(folder / WEIGHTS_NAME)), folder / WEIGHTS_NAME)


# ------------------------------------------------------------------------------------------------------- what loads


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model._orig_mod.module."])
def test_prefixes_of_wrappers_come_off_in_a_folder_and_in_a_published_file(prefix, folder, small, published, tmp_path):
    rewrite(folder, lambda state: {prefix + name: tensor for name, tensor in state.items()})
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(load_model(folder)(image), small(image))
    torch.save({prefix + name: tensor for name, tensor in published.items()}, tmp_path / "w.pt")
    assert load_model(tmp_path / "w.pt", patch_size=64).head.weight.equal(published["baseBackbone.classifier.1.weight"])


def test_a_compiled_part_is_found_under_its_plain_name(folder, small):
    rewrite(folder, lambda state: {name.replace("features.", "features._orig_mod."): t for name, t in state.items()})
    assert load_model(folder).features.state_dict().keys() == small.features.state_dict().keys()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model": state},
        lambda state: {
            "model_state_dict": state,
            "epoch": 7,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "loss": 0.5},
        lambda state: {"state_dict": state, "extra": torch.zeros(2), "hyper_parameters": {}},
    ],
)
def test_the_only_state_dict_in_a_file_is_taken(wrapped, published, tmp_path):
    torch.save(wrapped(published), tmp_path / "w.pt")
    model = load_model(tmp_path / "w.pt", patch_size=512)
    assert model.head.bias.equal(published["baseBackbone.classifier.1.bias"])


def test_missing_counters_of_batches_load_and_nothing_else_may_be_missing(folder, small):
    rewrite(folder, lambda state: {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")})
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(load_model(folder)(image), small(image))
    rewrite(folder, lambda state: {name: t for name, t in state.items() if not name.endswith("bn1.running_mean")})
    assert "bn1.running_mean' is missing" in refused(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read_as_float32(dtype, folder, small):
    rewrite(folder, lambda state: {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()})
    loaded = load_model(folder)
    assert loaded.head.weight.dtype == torch.float32
    assert loaded.head.weight.equal(small.head.weight.to(dtype).float())


# ------------------------------------------------------------------------------------------------- what is refused


def test_several_state_dicts_are_named(published, tmp_path):
    torch.save({"state_dict": published, "ema": published, "epoch": 3}, tmp_path / "w.pt")
    assert "several state dicts ('state_dict', 'ema')" in refused(tmp_path / "w.pt", 64)


def test_a_name_with_and_without_prefix_is_ambiguous(published, tmp_path):
    both = published | {f"_orig_mod.{name}": tensor for name, tensor in list(published.items())[:3]}
    torch.save(both, tmp_path / "w.pt")
    assert "two tensors are called 'baseBackbone.features.0.0.weight'" in refused(tmp_path / "w.pt", 64)
    with pytest.raises(InputError, match="two tensors"):
        plain_names({"a.b": torch.zeros(1), "a._orig_mod.b": torch.zeros(1)}, tmp_path)


def test_a_prefix_that_nobody_knows_is_shown(folder):
    rewrite(folder, lambda state: {f"student.{name}": tensor for name, tensor in state.items()})
    assert "tensor 'head.weight' is missing; found 'student." in refused(folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "lr": 0.1}, "found 'epoch', 'lr'"),
        ([torch.zeros(1)], "found a list"),
        (torch.zeros(3), "found a Tensor"),
        (7, "found 7"),
        ({}, "its 0 tensors are called nothing"),
    ],
)
def test_what_a_file_holds_instead_is_said(content, found, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert found in refused(tmp_path / "w.pt", 64)


class WholeModel(nn.Module):
    """As the published training saves it: the object itself, not its state dict."""


@pytest.mark.parametrize("beside", [True, False])
def test_a_whole_pickled_model_is_recognised_and_its_state_dict_named(beside, tmp_path):
    torch.save(WholeModel(), tmp_path / "MedicalPatchNet.pt")
    if beside:
        (tmp_path / "MedicalPatchNet_weights.pt").touch()
    told = refused(tmp_path / "MedicalPatchNet.pt", 64)
    assert "WholeModel" in told and "this is a whole pickled model" in told
    assert told.endswith("lies beside it" if beside else "its state dict, MedicalPatchNet_weights.pt")


STEM = "baseBackbone.features.0.0.weight"
ODD = {
    "sparse": (lambda t: t.to_sparse(), "is sparse"),
    "sparse rows": (lambda t: t.reshape(32, 9).to_sparse_csr(), "is sparse"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is quantized"),
    "complex": (lambda t: t.to(torch.complex64), "numbers of kind torch.complex64"),
    "integers": (lambda t: t.to(torch.int32), "numbers of kind torch.int32"),
    "truth values": (lambda t: t > 0, "numbers of kind torch.bool"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "holds more than tensors, or is damaged"),
    "on no device": (lambda t: t.to("meta"), "is on no device"),
    "a single number": (lambda t: torch.tensor(1.0), "single number"),
    "NaN": (lambda t: t.index_fill(0, torch.tensor([31]), torch.nan), "holds NaN or infinite"),
    "infinite": (lambda t: t.index_fill(0, torch.tensor([0]), -torch.inf), "holds NaN or infinite"),
    "too large for float32": (lambda t: t.double() * 1e300, "holds NaN or infinite"),
    "a view that claims terabytes": (lambda t: torch.zeros(1).expand(32, 10**6, 10**6), "has shape (32, 1000000"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_odd_kinds_are_refused_by_name(kind, published, tmp_path):
    make, told = ODD[kind]
    torch.save(published | {STEM: make(published[STEM])}, tmp_path / "w.pt")
    assert told in refused(tmp_path / "w.pt", 64)


def test_values_that_give_no_numbers_are_refused_in_a_folder(folder):
    rewrite(folder, lambda state: state | {"head.bias": torch.tensor([0.0, torch.nan])})
    assert "tensor 'head.bias' holds NaN or infinite values" in refused(folder)
    rewrite(folder, lambda state: state | {"head.bias": torch.zeros(2), "features.bn1.running_var": -torch.ones(24)})
    assert "tensor 'features.bn1.running_var' holds negative variances" in refused(folder)


def test_a_head_for_all_labels_of_a_config_is_compared_before_it_is_built(folder, monkeypatch):
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(config | {"labels": [f"label {i}" for i in range(900)]}))
    monkeypatch.setattr("models.checkpoint.MedicalPatchNet", None)  # building it would fail otherwise
    assert "'head.weight' has shape (2, 256) for 900 labels" in refused(folder)
    rewrite(folder, lambda state: {"other": torch.zeros(1)})
    assert "tensor 'head.weight' is missing; found 'other'" in refused(folder)
