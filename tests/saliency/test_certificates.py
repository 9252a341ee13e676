"""Certificates of every aggregation as its formula says, and of classes that are deliberately wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cxr.files import InputError
from models import aggregation
from models.aggregation import AGGREGATIONS, Aggregation
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from saliency.certificates import measure_certificates
from tests.networks import calibrate

EXPECTED = {  # complete, local, linear
    "mean": (True, True, True),
    "position": (True, True, True),
    "gate": (True, True, False),
    "noisy_or": (False, True, False),
    "attention": (True, False, False),
    "logsumexp": (False, True, False),
}
FILMS, PATCH, SIDE = 4, 16, 48


def films() -> Tensor:
    """Noise of another brightness in every patch."""
    rng = torch.Generator().manual_seed(3)
    brightness = torch.rand(FILMS, 1, 3, 3, generator=rng).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    return brightness * torch.rand(FILMS, 1, SIDE, SIDE, generator=rng)


def network(name: str, **sizes: int) -> MedicalPatchNet:
    torch.manual_seed(0)
    sizes = {"patch_size": PATCH, "image_size": SIDE} | sizes
    made = build_model("timm/test_efficientnet", **sizes, labels="abcd", aggregation=name)
    calibrate(made, films())
    with torch.no_grad():
        made.head.weight *= 10  # patch logits that differ from patch to patch by about 1
        for parameter in made.aggregation.parameters():
            parameter.normal_(0, 0.5)
    return made


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Classes of these tests are not known to others."""
    monkeypatch.setattr(aggregation, "AGGREGATIONS", dict(AGGREGATIONS))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_aggregation_has_the_properties_of_its_formula(name):
    made = network(name).train()
    certificates = measure_certificates(made, films())
    assert (certificates.complete, certificates.local, certificates.linear) == EXPECTED[name]
    assert (certificates.aggregation, certificates.films) == (name, FILMS) and made.training
    for holds, error in zip(EXPECTED[name], (certificates.complete_error, certificates.local_error,
                                             certificates.linear_error), strict=True):  # fmt: skip
        assert error < 1e-5 if holds else error > 1e-2


def test_errors_equal_a_loop_over_films_patches_and_labels():
    """Composites pasted patch by patch, by the same random numbers; every error and scale one number at a time."""
    made, rng = network("attention"), torch.Generator().manual_seed(0)
    originals = films()
    missing, moved, values, sums = (torch.zeros(4) for _ in range(4))
    for film in range(FILMS):
        other = (film + 1) % FILMS
        batch, sources = [originals[film], originals[other]], []
        for _ in range(4):
            order = torch.randperm(9, generator=rng).tolist()
            source = [film if order[p] < 4 else other for p in range(9)]
            image = torch.zeros(1, SIDE, SIDE)
            for p in range(9):
                rows, columns = (slice(PATCH * place, PATCH * place + PATCH) for place in divmod(p, 3))
                image[:, rows, columns] = originals[source[p], :, rows, columns]
            batch.append(image)
            sources.append(source)
        with torch.no_grad():
            contributions, logits = made.contributions(torch.stack(batch)), made(torch.stack(batch))
        for c in range(4):
            for i in range(6):
                total = sum(contributions[i, p, c].item() for p in range(9))
                missing[c] = max(missing[c], abs(total - logits[i, c].item()))
                sums[c] = max(sums[c], abs(logits[i, c].item()))
                values[c] = max(values[c], *(abs(contributions[i, p, c].item()) for p in range(9)))
            for i, source in enumerate(sources, start=2):
                for p in range(9):
                    own = contributions[0 if source[p] == film else 1, p, c]
                    moved[c] = max(moved[c], abs(contributions[i, p, c] - own).item())
    measured = measure_certificates(made, originals)
    assert measured.local_error == pytest.approx(max(moved / values).item(), rel=1e-4)
    assert measured.complete_error == pytest.approx(max(missing / torch.maximum(values, sums)).item(), abs=1e-6)


def wrong(what: str, linear: bool = False) -> type[Aggregation]:
    class Wrong(Aggregation, name=f"wrong_{what}", linear=linear):
        def contributions(self, patch_logits: Tensor) -> Tensor:
            even = patch_logits / patch_logits.shape[1]
            if what == "leak":  # a thousandth of the neighbour's evidence
                return even + 1e-3 * even.roll(1, dims=1)
            if what == "centred":  # less the film's own mean: as many methods normalise
                return even - even.mean(dim=1, keepdim=True) + 0.1
            return even.abs() if what == "bent" else even

        def forward(self, patch_logits: Tensor) -> Tensor:
            total = self.contributions(patch_logits).sum(dim=1)
            return total + 1e-2 if what == "offset" else total

    return Wrong


@pytest.mark.parametrize(
    ("what", "complete", "local"), [("leak", True, False), ("centred", True, False), ("offset", False, True)]
)
def test_a_class_that_is_wrong_in_small_things_is_caught(what, complete, local):
    wrong(what)
    found = measure_certificates(network(f"wrong_{what}"), films())
    assert (found.complete, found.local) == (complete, local)
    said = str(found)
    assert ("do not sum to the logit" in said) != complete
    assert ("each depends on the other patches too" in said) != local


def test_a_class_that_calls_itself_linear_and_is_not_is_refused_by_name():
    wrong("bent", linear=True)
    with pytest.raises(InputError, match=r"aggregation 'wrong_bent' calls itself linear and is not \(off by") as told:
        measure_certificates(network("wrong_bent"), films())
    assert "\n" not in str(told.value)


def test_films_that_are_all_the_same_make_nothing_linear():
    same = films()[:1].expand(3, -1, -1, -1)
    certificates = measure_certificates(network("gate"), same)
    assert certificates.linear_error < 1e-4 and not certificates.linear


def test_one_film_is_compared_with_its_negative():
    assert not measure_certificates(network("attention"), films()[:1]).local
    assert measure_certificates(network("gate"), films()[:1]).local


def test_a_baseline_of_one_patch_and_nan_weights():
    assert measure_certificates(network("mean", patch_size=SIDE), films()).local
    made = network("gate")
    with torch.no_grad():
        made.aggregation.gate.bias.fill_(math.nan)
    broken = measure_certificates(made, films())
    assert not (broken.complete or broken.local or broken.linear)


def test_verdicts_stand_beside_the_errors_in_json():
    content = measure_certificates(network("attention"), films()).to_json()
    assert content["complete"] is True and content["local"] is False and content["local_error"] > 1e-2
    assert set(content) == {
        *("aggregation", "films", "complete", "complete_error", "local", "local_error", "linear", "linear_error"),
        "declared_linear",
    }
