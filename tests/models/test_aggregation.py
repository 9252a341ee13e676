"""Every aggregation against a loop over films, patches and labels; in files, gradients, and beside a new one."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxr.files import InputError
from cxr.labels import CHEXPERT
from models.aggregation import AGGREGATIONS, Aggregation, build_aggregation
from models.backbones import build_backbone
from models.checkpoint import build_model, load_model, save_model
from models.patch_net import MedicalPatchNet, split_patches
from models.published import save_published
from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME
from tests.refusals import refused

NAMES = ("mean", "position", "gate", "noisy_or", "attention", "logsumexp")
LOCAL = {"mean": True, "position": True, "gate": True, "noisy_or": True, "attention": False, "logsumexp": True}
SIDE, C = 3, 4


def aggregation(name: str) -> Aggregation:
    """With parameters that are not those it starts with."""
    torch.manual_seed(0)
    made = build_aggregation(name, C, SIDE).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


def patch_logits(films: int = 2) -> Tensor:
    return 2 * torch.randn(films, SIDE**2, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------------- against a loop


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_logit(made: Aggregation, logits: list[list[float]], c: int) -> float:
    """Logit of label c for one film; logits[p][c]. Probabilities and sums as in the papers, one number at a time."""
    own = [patch[c] for patch in logits]
    count = len(own)
    if made.name == "mean":
        return sum(own) / count
    if made.name == "position":
        weights = [(1 + made.deviation[c][p // SIDE][p % SIDE].item()) / count for p in range(count)]
        return sum(w * x for w, x in zip(weights, own, strict=True)) + made.offset[c].item()
    if made.name == "gate":
        gates = [2 * sigmoid(affine(made.gate, patch, c)) for patch in logits]
        return sum(g * x for g, x in zip(gates, own, strict=True)) / count
    if made.name == "noisy_or":
        none = math.prod(1 - sigmoid(x - math.log(count)) for x in own)
        return math.log((1 - none) / none)
    if made.name == "attention":
        scores = [math.exp(affine(made.score, patch, c)) for patch in logits]
        return sum(s * x for s, x in zip(scores, own, strict=True)) / sum(scores)
    return math.log(sum(math.exp(x) for x in own) / count)


def affine(layer: nn.Linear, patch: list[float], c: int) -> float:
    return sum(w * x for w, x in zip(layer.weight[c].tolist(), patch, strict=True)) + layer.bias[c].item()


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_a_loop_over_patches_and_are_the_linked_sum_of_the_contributions(name):
    made, logits = aggregation(name), patch_logits()
    with torch.no_grad():
        ours, contributions = made(logits), made.contributions(logits)
    expected = [[slow_logit(made, film.tolist(), c) for c in range(C)] for film in logits]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert contributions.shape == logits.shape
    torch.testing.assert_close(made.link(contributions.sum(dim=1)), ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_contributions_are_local_but_those_of_attention(name):
    """Patches of another film take the place of all but one; that one's contribution stays, or does not."""
    made, (first, second) = aggregation(name), patch_logits()
    swapped = second.clone()
    swapped[5] = first[5]
    with torch.no_grad():
        moved = made.contributions(swapped[None])[0, 5] - made.contributions(first[None])[0, 5]
    assert (moved.abs().max() < 1e-12) == LOCAL[name]


@pytest.mark.parametrize("name", NAMES)
def test_linear_is_said_of_those_that_are(name):
    made, logits = aggregation(name), patch_logits(3)
    with torch.no_grad():
        a, b, zero = made(logits[:1]), made(logits[1:2]), made(torch.zeros_like(logits[:1]))
        both = made(logits[:1] + logits[1:2])
    assert ((a + b - zero - both).abs().max() < 1e-6) == made.linear


@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_finite_differences(name):
    made = aggregation(name)
    names = [name for name, _ in made.named_parameters()]

    def logits_of(values: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(names, parameters, strict=True)), (values,))

    inputs = (patch_logits(1), *(parameter.detach() for parameter in made.parameters()))
    assert torch.autograd.gradcheck(logits_of, [value.requires_grad_() for value in inputs])


@pytest.mark.parametrize("name", ["noisy_or", "logsumexp", "attention"])
def test_extreme_patch_logits_give_finite_logits_and_gradients(name):
    logits = torch.tensor([-1e4, -200.0, 0.0, 60.0, 80.0, 5.0, -80.0, 1.0, 2.0])[None, :, None].expand(1, 9, C)
    for values in (logits, -logits.abs(), torch.full((1, 9, C), -1e4), torch.full((1, 9, C), 80.0)):
        inputs = values.clone().requires_grad_()
        made = build_aggregation(name, C, SIDE)
        outputs = made(inputs)
        F.binary_cross_entropy_with_logits(outputs, torch.zeros_like(outputs)).backward()
        assert outputs.isfinite().all() and inputs.grad.isfinite().all()


def test_training_starts_from_the_mean_where_parameters_allow_it():
    logits = patch_logits().float()
    for name in ("position", "gate", "attention"):
        torch.testing.assert_close(build_aggregation(name, C, SIDE)(logits), logits.mean(dim=1))


def test_decay_pulls_position_weights_towards_the_mean():
    made = aggregation("position")
    before = (made.weights - 1 / SIDE**2).abs().max()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (0 * made(patch_logits())).sum().backward()
        optimizer.step()
    assert (made.weights - 1 / SIDE**2).abs().max() < 0.5 * before


# --------------------------------------------------------------------------------------------------- in the network


def network(name: str, **sizes: int) -> MedicalPatchNet:
    torch.manual_seed(0)
    sizes = {"patch_size": 32, "image_size": 96} | sizes
    made = build_model("timm/test_efficientnet", **sizes, labels="abcd", aggregation=name)
    with torch.no_grad():
        for parameter in made.aggregation.parameters():
            parameter.normal_(0, 0.5)
    return made.eval()


def test_the_mean_gives_the_bits_of_the_plain_mean_and_draws_no_random_numbers():
    made = network("mean")
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        pooled = made.features(split_patches(images, 32)).mean(dim=(2, 3))
        assert torch.equal(made(images), made.head(pooled).unflatten(0, (2, 9)).mean(dim=1))
    torch.manual_seed(0)
    parts = build_backbone("timm/test_efficientnet")
    head = nn.Linear(parts.width, 4)
    for name in NAMES:
        other = network(name)
        assert torch.equal(other.head.weight, head.weight), "as a network without an aggregation is drawn"
        assert torch.equal(other.features.conv_stem.weight, parts.features.conv_stem.weight)


@pytest.mark.parametrize("name", NAMES)
def test_name_and_tensors_survive_saving_and_loading(name, tmp_path):
    made = network(name)
    save_model(made, tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert config.get("aggregation", "mean") == name and ("aggregation" in config) == (name != "mean")
    images = torch.rand(2, 1, 96, 96)
    for again in (load_model(tmp_path), MedicalPatchNet.from_pretrained(tmp_path)):
        assert again.aggregation.name == name
        with torch.inference_mode():
            assert torch.equal(again(images), made(images))
            assert torch.equal(again.contributions(images), made.contributions(images))


@pytest.mark.parametrize("name", NAMES)
def test_contributions_of_a_network_sum_to_its_logits(name):
    made = network(name)
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        contributions = made.contributions(images)
        assert contributions.shape == (2, 9, 4)
        torch.testing.assert_close(made.aggregation.link(contributions.sum(dim=1)), made(images), rtol=1e-4, atol=1e-5)


def test_weights_for_another_number_of_patches_are_refused(tmp_path):
    save_model(network("position"), tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config | {"image_size": 64}))
    assert "'aggregation.deviation' has shape (4, 3, 3), the network needs (4, 2, 2)" in refused(tmp_path)


def test_weights_of_another_aggregation_and_damaged_ones_are_refused(tmp_path):
    made = network("gate")
    save_model(made, tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config | {"aggregation": "attention"}))
    assert "'aggregation.score.weight' is missing; found 'aggregation.gate.bias'" in refused(tmp_path)
    with torch.no_grad():
        made.aggregation.gate.bias[0] = torch.nan
    save_model(made, tmp_path)
    assert f"{WEIGHTS_NAME}: tensor 'aggregation.gate.bias' holds NaN" in refused(tmp_path)


def test_unknown_names_and_a_single_patch_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="unknown aggregation 'median'; known are mean, position, gate, noisy_or"):
        network("median")
    with pytest.raises(InputError, match="aggregation 'position' of one patch, the whole film"):
        network("position", patch_size=96)
    assert network("mean", patch_size=96).aggregation.name == "mean"
    made = build_model("efficientnet_b0", patch_size=64, image_size=512, labels=CHEXPERT, aggregation="position")
    with pytest.raises(InputError, match="the published layout holds no aggregation but the mean"):
        save_published(made, tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("median", "unknown aggregation 'median'; known are mean, position, gate, noisy_or, attention, logsumexp"),
        ("Mean", "unknown aggregation 'Mean'; known are mean"),
        ("", "unknown aggregation ''; known are mean"),
        ("a\nb", r"unknown aggregation 'a\nb'; known are mean"),
        (None, "aggregation: None is not a text"),
        (["mean"], "aggregation: a list is not a text"),
    ],
)
def test_names_in_a_config_that_no_aggregation_has_are_one_line(name, said, tmp_path):
    save_model(network("mean"), tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config | {"aggregation": name}))
    message = refused(tmp_path)
    assert said in message and "\n" not in message


@pytest.mark.parametrize("shape", [(4, 9), (5, 3, 3), (0, 3, 3), (4, 4, 4)])
def test_position_weights_of_another_shape_are_refused(shape, tmp_path):
    made = network("position")
    made.aggregation.deviation = nn.Parameter(torch.zeros(shape))
    save_model(made, tmp_path)
    assert f"'aggregation.deviation' has shape {shape}, the network needs (4, 3, 3)" in refused(tmp_path)


# ------------------------------------------------------------------------------------------------------- a new one


class Consensus(Aggregation, name="consensus"):
    """A patch counts as much as its 3 x 3 neighbourhood agrees with it: sigmoid(own * mean of neighbours)."""

    def __init__(self, labels: int, side: int) -> None:
        super().__init__(labels, side)
        self.side = side
        self.sharpness = nn.Parameter(torch.ones(labels))

    def contributions(self, patch_logits: Tensor) -> Tensor:
        grid = patch_logits.transpose(1, 2).unflatten(2, (self.side, self.side))  # (B, C, k, k)
        around = F.avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=False)  # (B, C, k, k)
        agreement = around.flatten(2).transpose(1, 2) * patch_logits * self.sharpness  # (B, P, C)
        return agreement.sigmoid() * patch_logits / patch_logits.shape[1]


def test_an_experiment_of_the_fork_is_one_class(tmp_path):
    """It trains, is saved, loads and explains itself without a change to any other file."""
    assert AGGREGATIONS["consensus"] is Consensus
    made = network("consensus").train()
    images = torch.rand(2, 1, 96, 96)
    made(images).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    save_model(made.eval(), tmp_path)
    again = load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again.contributions(images).sum(dim=1), made(images))
    assert json.loads((tmp_path / CONFIG_NAME).read_text())["aggregation"] == "consensus"
