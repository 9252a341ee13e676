"""The published fork's experiments, each one class of a few lines that trains, is saved, and is certified."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from torch import Tensor, nn

from models import aggregation
from models.aggregation import AGGREGATIONS, Aggregation
from models.checkpoint import build_model, load_model, save_model
from saliency.certificates import measure_certificates
from tests.networks import calibrate


def centre_weights() -> type[Aggregation]:
    class CentreWeights(Aggregation, name="centre_weights", linear=True):
        """Places count by their distance from the film's centre: exp(-softplus(a) r^2), scaled to a mean of 1."""

        def __init__(self, labels: int, side: int) -> None:
            super().__init__(labels, side)
            places = torch.linspace(-1, 1, side).square()
            self.register_buffer("radius", (places[:, None] + places).flatten()[:, None], persistent=False)  # (P, 1)
            self.sharpness = nn.Parameter(torch.full((labels,), -2.0))

        def contributions(self, patch_logits: Tensor) -> Tensor:
            weights = (-nn.functional.softplus(self.sharpness) * self.radius).exp()  # (P, C)
            return weights / weights.mean(dim=0) * patch_logits / patch_logits.shape[1]

    return CentreWeights


def film_of_place() -> type[Aggregation]:
    class FiLM(Aggregation, name="film", linear=True):
        """Scale and shift per place and label, read from its coordinates (Perez et al., arXiv 1709.07871)."""

        def __init__(self, labels: int, side: int) -> None:
            super().__init__(labels, side)
            places = torch.linspace(-1, 1, side)
            self.register_buffer("places", torch.cartesian_prod(places, places), persistent=False)  # (P, 2)
            self.modulate = nn.Linear(2, 2 * labels)
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

        def contributions(self, patch_logits: Tensor) -> Tensor:
            gamma, beta = self.modulate(self.places).chunk(2, dim=1)  # (P, C) each
            return ((1 + gamma) * patch_logits + beta) / patch_logits.shape[1]

    return FiLM


def coordinate_channels() -> type[Aggregation]:
    class CoordinateChannels(Aggregation, name="coordinates", linear=False):
        """A small network per patch on its logits with its coordinates as two more channels."""

        def __init__(self, labels: int, side: int) -> None:
            super().__init__(labels, side)
            places = torch.linspace(-1, 1, side)
            self.register_buffer("places", torch.cartesian_prod(places, places), persistent=False)  # (P, 2)
            self.mix = nn.Sequential(nn.Linear(labels + 2, 16), nn.SiLU(), nn.Linear(16, labels))

        def contributions(self, patch_logits: Tensor) -> Tensor:
            places = self.places.expand(len(patch_logits), -1, -1)  # (B, P, 2)
            mixed = self.mix(torch.cat([patch_logits, places], dim=2))  # (B, P, C)
            return (patch_logits + mixed) / patch_logits.shape[1]

    return CoordinateChannels


EXPERIMENTS = {  # complete, local, linear
    centre_weights: (True, True, True),
    film_of_place: (True, True, True),
    coordinate_channels: (True, True, False),
}


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Classes of these tests are not known to others."""
    monkeypatch.setattr(aggregation, "AGGREGATIONS", dict(AGGREGATIONS))


@pytest.mark.parametrize("define", EXPERIMENTS, ids=lambda define: define.__name__)
def test_an_experiment_of_the_fork_is_one_class_of_under_thirty_lines(define, tmp_path):
    made = define()
    assert len(inspect.getsource(made).splitlines()) < 30
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=16, image_size=48, labels="abcd", aggregation=made.name)
    films = torch.rand(4, 1, 48, 48) * torch.rand(4, 1, 3, 3).repeat_interleave(16, 2).repeat_interleave(16, 3)
    calibrate(model, films)
    with torch.no_grad():
        model.head.weight *= 10  # patch logits that differ from patch to patch by about 1
    loss = nn.functional.binary_cross_entropy_with_logits(model(films), torch.eye(4))
    loss.backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            if name.startswith("aggregation."):
                assert parameter.grad.abs().max() > 0, name
                parameter += 0.5 * torch.randn_like(parameter)
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["aggregation"] == made.name
    again = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(again(films), model(films))
    found = measure_certificates(again, films)
    assert (found.complete, found.local, found.linear) == EXPERIMENTS[define]
