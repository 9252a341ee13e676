"""Networks that do not average their patch logits are evaluated by their own rule, and nothing more is claimed."""

import json
import shutil

import numpy as np
import pytest
import torch

import cli
import evalClassification
from cxr.files import InputError
from cxr.labels import CHEXPERT
from models.aggregation import AGGREGATIONS
from models.checkpoint import build_model, load_model, save_model
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source


def evaluate(weights, data, output, *more):
    command = ["--weights", weights, "--data", data, "--output", output, "--resamples", 0, "--workers", 0, *more]
    return cli.guarded(evalClassification.main, [str(word) for word in command])


def saved(name, folder):
    """Weights of a network whose aggregation is not at its start."""
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT, aggregation=name)
    for parameter in model.aggregation.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, folder)
    return folder


OWN = sorted(name for name, made in AGGREGATIONS.items() if made.__module__ == "models.aggregation")
"""Without the experiments of other tests."""


@pytest.mark.parametrize("name", OWN)
def test_patches_alone_give_the_logits_by_the_network_s_own_rule(tiny_chexpert, tmp_path, capsys, name):
    saved(name, tmp_path / "weights")
    assert evaluate(tmp_path / "weights", tiny_chexpert, tmp_path / "results", "--heatmaps", "none") == 0
    facts = json.loads((tmp_path / "results/run.json").read_text())
    assert facts["additivity"]["test"]["max_error"] < 1e-4 and facts["additivity"]["val"]["films"] == 6
    said = capsys.readouterr().out
    assert f"the film's logits ({name})" in said
    for split in ("val", "test"):
        certificates = facts["certificates"][split]
        assert (certificates["aggregation"], certificates["films"]) == (name, 6)
        assert certificates["complete"] == (name not in ("noisy_or", "logsumexp"))
        assert certificates["local"] == (name != "attention")
        assert certificates["linear"] or name not in ("mean", "position")
    assert ("each depends on the other patches too" in said) == (name == "attention")


@pytest.fixture(scope="module")
def chexlocalize(tiny_chexpert, tmp_path_factory):
    """The validation and test films once more, as CheXlocalize lays them out."""
    root = tmp_path_factory.mktemp("chexlocalize") / "CheXpert"
    for split, of_copy, table in (("val", "valid", "valid.csv"), ("test", "test", "test_labels.csv")):
        shutil.copytree(tiny_chexpert / of_copy, root / split)
        shutil.copy(tiny_chexpert / table, root / f"{split}_labels.csv")
    return root.parent


@pytest.mark.parametrize("name", ["position", "attention"])
def test_maps_are_those_that_hold_and_shares_are_the_contributions(tiny_chexpert, chexlocalize, tmp_path, capsys, name):
    weights, results = saved(name, tmp_path / "weights"), tmp_path / "results"
    options = ("--chexlocalize", chexlocalize, "--steps-per-patch", 2, "--no-pickles")
    assert evaluate(weights, tiny_chexpert, results, *options) == 0
    kinds = {method for _, method in EvidenceFolder.kinds(results / "evidence/test")}
    assert (results / "reference.npz").is_file() == (name == "position")
    assert kinds == ({"raw", "scaled", "relative"} if name == "position" else {"raw"})
    model, folder = load_model(weights), EvidenceFolder(
        results / "evidence/test", method="raw", protocol="corrected", tasks=CHEXPERT.task_names
    )  # fmt: skip
    for film, task in folder.entries:
        shares = folder.patch_logits(film, task) / 4
        probability = folder.load(film, task).probability
        assert 1 / (1 + np.exp(-shares.sum())) == pytest.approx(probability, abs=1e-5), "complete"
    assert len(folder.entries) == 6 * len(CHEXPERT.task_names) and model.aggregation.name == name
    if name == "attention":
        with pytest.raises(InputError, match="no scaled maps: the network's aggregation is not linear"):
            heat_map_source(results, "corrected", "test", "scaled", CHEXPERT.task_names)
        capsys.readouterr()
        assert evaluate(weights, tiny_chexpert, tmp_path / "more", *options, "--heatmaps", "raw", "scaled") == 2
        said = capsys.readouterr().err
        assert "scaled maps holds for linear aggregations (mean, position); this network aggregates with" in said
        assert said.count("\n") == 1 and not (tmp_path / "more/predictions_test.csv").exists()
