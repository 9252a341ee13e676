"""The aggregation benchmark's parts: networks trained on frozen logits are the networks that it scores and maps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import aggregated_networks as networks
from benchmarks import bench_aggregations as bench
from cxr.images import Crop
from cxr.manifest import read_films
from evaluation.localizing.localization import score_maps
from models.checkpoint import build_model
from tests.networks import calibrate

SIZES = {"patch_size": 32, "image_size": 64}


@pytest.fixture(scope="module")
def frozen(tiny_chexpert):
    """A network, and its patch logits of the training and validation films."""
    torch.manual_seed(0)
    films = [read_films(tiny_chexpert / f"{name}.csv", tiny_chexpert) for name in ("train", "valid")]
    model = build_model("timm/test_efficientnet", **SIZES, labels=films[0].label_set)
    calibrate(model, torch.rand(4, 1, 64, 64))
    with torch.no_grad():
        model.head.weight *= 30
    return model, [networks.Split(part, networks.frozen_logits(model, part)) for part in films]


@pytest.mark.parametrize("name", ["position", "gate", "logsumexp"])
def test_logits_from_the_frozen_ones_are_those_of_the_whole_network(frozen, name, monkeypatch):
    monkeypatch.setattr(networks, "STEPS", 30)
    model, (train, validation) = frozen
    made = networks.aggregated(model, name, train, validation)
    images = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        logits = bench.own_logits(made, model.patch_logits(images), model)
        torch.testing.assert_close(logits, made.patch_logits(images), rtol=1e-4, atol=1e-4)
        before = networks.cross_entropy(model.aggregation(validation.logits), validation.labels)
        own = bench.own_logits(made, validation.logits, model)
        after = networks.cross_entropy(made.aggregation(own), validation.labels)
    assert after < before or name == "logsumexp" and after < 1.0


def test_a_reference_is_the_mean_of_the_view_s_films():
    crop = Crop.centred(4, 4)
    films = {name: (crop, view, torch.full((1, 2, 2), value)) for name, view, value in (
        ("a", "frontal", 1.0), ("b", "frontal", 3.0), ("c", "lateral", 8.0))}  # fmt: skip
    assert bench.reference(films, "frontal").unique().tolist() == [2.0]
    assert bench.reference(films, "lateral").unique().tolist() == [8.0]
    assert bench.reference(films, "").unique().tolist() == [4.0]


class Truth:
    """A mask in the upper left quarter, for one film and task."""

    tasks, image_ids, source = ("Edema",), ("a",), "truth"

    def __contains__(self, film):
        return film == "a"

    def area(self, film, task):
        return 0.25

    def annotates(self, film, task):
        return True

    def size(self, film):
        return (64, 64)

    def mask(self, film, task):
        mask = np.zeros((64, 64), dtype=bool)
        mask[:32, :32] = True
        return mask


@pytest.mark.parametrize(("place", "hit"), [((0, 0), 1.0), ((7, 7), 0.0)])
def test_a_map_hits_where_its_values_are_highest(frozen, place, hit):
    model, _ = frozen
    values = torch.zeros(len(model.labels), 8, 8)
    values[model.labels.index("Edema"), place[0], place[1]] = 5.0
    maps = bench.Maps(model, {"a": (Crop.centred(64, 64), "frontal", values)}, Truth(), 4)
    assert maps.entries == [("a", "Edema")]
    assert score_maps(maps, Truth(), masks=False).hits()["Edema"].tolist() == [hit]


def test_intervals_are_paired_with_the_mean_s_own_hits():
    hits = pd.DataFrame({"Edema": [1.0, 0.0, 1.0, np.nan]}, index=list("abcd"))
    facts = bench.hit_facts(hits, 1 - hits, "raw", 200)
    assert facts["hit_raw"] == pytest.approx(2 / 3) and facts["hit_raw_minus_mean"] == pytest.approx(1 / 3)
    same = bench.hit_facts(hits, hits, "raw", 200)
    assert same["hit_raw_minus_mean_low"] == same["hit_raw_minus_mean_high"] == 0
