"""The aggregation benchmark's parts: networks trained on frozen logits are the networks that it scores and maps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import trainClassification
from benchmarks import bench_aggregations as bench
from benchmarks.aggregations import networks, scoring
from cxr.files import sha256
from cxr.images import Crop
from cxr.manifests.films import read_films
from evaluation.localizing.localization import score_maps
from models.checkpoint import build_model, save_model
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
        logits = scoring.own_logits(made, model.patch_logits(images), model)
        torch.testing.assert_close(logits, made.patch_logits(images), rtol=1e-4, atol=1e-4)
        before = networks.cross_entropy(model.aggregation(validation.logits), validation.labels)
        own = scoring.own_logits(made, validation.logits, model)
        after = networks.cross_entropy(made.aggregation(own), validation.labels)
    assert after < before or name == "logsumexp" and after < 1.0


def test_a_reference_is_the_mean_of_the_view_s_films():
    crop = Crop.centred(4, 4)
    films = {name: (crop, view, torch.full((1, 2, 2), value)) for name, view, value in (
        ("a", "frontal", 1.0), ("b", "frontal", 3.0), ("c", "lateral", 8.0))}  # fmt: skip
    assert scoring.reference(films, "frontal").unique().tolist() == [2.0]
    assert scoring.reference(films, "lateral").unique().tolist() == [8.0]
    assert scoring.reference(films, "").unique().tolist() == [4.0]


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
    maps = scoring.Maps(model, {"a": (Crop.centred(64, 64), "frontal", values)}, Truth(), 4)
    assert maps.entries == [("a", "Edema")]
    assert score_maps(maps, Truth(), masks=False).hits()["Edema"].tolist() == [hit]


def test_intervals_are_paired_with_the_mean_s_own_hits():
    hits = pd.DataFrame({"Edema": [1.0, 0.0, 1.0, np.nan]}, index=list("abcd"))
    facts = scoring.hit_facts(hits, 1 - hits, "raw", 200)
    assert facts["hit_raw"] == pytest.approx(2 / 3) and facts["hit_raw_minus_mean"] == pytest.approx(1 / 3)
    same = scoring.hit_facts(hits, hits, "raw", 200)
    assert same["hit_raw_minus_mean_low"] == same["hit_raw_minus_mean_high"] == 0


def test_further_training_starts_from_the_network_with_another_aggregation_and_is_made_once(tiny_chexpert, tmp_path):
    sizes = ["--backbone", "timm/test_efficientnet", "--init", "random", "--image-size", "64", "--patch-size", "32"]
    words = ["--data", tiny_chexpert, "--output", tmp_path / "mean", *sizes, "--epochs", "1", "--batch-size", "4"]
    words += ["--no-evaluation", "--workers", "0", "--device", "cpu", "--seed", "3"]
    assert trainClassification.main([str(word) for word in words]) == 0
    made = [
        networks.trained_further(tmp_path / "mean", tiny_chexpert, "gate", 1, tmp_path / "further") for _ in range(2)
    ]
    assert made[0].aggregation.name == "gate" and made[0].aggregation.gate.weight.abs().max() > 0
    for name, tensor in made[0].state_dict().items():
        assert torch.equal(tensor, made[1].state_dict()[name]), name
    settings = json.loads((tmp_path / "further/training.json").read_text())["settings"]
    assert (settings["init"], settings["seed"], settings["epochs"]) == ("mean", 3, 1)
    start, end = (folder / "model.safetensors" for folder in (tmp_path / "mean", tmp_path / "further"))
    assert settings["init_sha256"] == sha256(start) != sha256(end)


def test_rows_of_the_same_weights_and_settings_are_kept_and_others_are_made(frozen, tmp_path, monkeypatch):
    model, _ = frozen
    asked = []

    def rows(demo, settings):
        asked.append((demo.name, settings.epochs))
        for name in bench.AGGREGATIONS:
            yield {"aggregation": name, "auroc": 0.5 + len(asked) / 100}

    monkeypatch.setattr(bench, "demo_rows", rows)
    for name in ("a", "b"):
        save_model(model, tmp_path / name / "savedModels/MedicalPatchNet")

    def table(*words):
        assert bench.main([*words, "--out", str(tmp_path / "out.csv")]) == 0
        rows = pd.read_csv(tmp_path / "out.csv")
        return rows[rows["aggregation"] == "mean"]

    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    table(a)
    found = table(a, b)
    assert asked == [("a", 0), ("b", 0)] and found["auroc"].tolist() == [0.51, 0.52]
    assert found["demo"].tolist() == ["a", "b"] and found["weights"].nunique() == 1
    found = table(a, "--epochs", "2")
    assert asked[2:] == [("a", 2)] and found["further_epochs"].tolist() == [0, 0, 2]
    with torch.no_grad():
        model.head.bias[0] += 1
        save_model(model, tmp_path / "a/savedModels/MedicalPatchNet")
        model.head.bias[0] -= 1
    assert len(table(a)) == 4 and asked[3:] == [("a", 0)]
    rows = pd.read_csv(tmp_path / "out.csv")
    rows[~((rows["demo"] == "b") & (rows["aggregation"] == "gate"))].to_csv(tmp_path / "out.csv", index=False)
    assert table(a, b)["auroc"].tolist() == [0.51, 0.53, 0.54, 0.55] and asked[4:] == [("b", 0)], "it was incomplete"
    assert len(pd.read_csv(tmp_path / "out.csv")) == 4 * len(bench.AGGREGATIONS)
