"""Networks that do not average their patch logits are evaluated by their own rule, and nothing more is claimed."""

import json

import pytest
import torch

import cli
import evalClassification
from cxr.labels import CHEXPERT
from models.aggregation import AGGREGATIONS
from models.checkpoint import build_model, save_model


def evaluate(weights, data, output, *more):
    command = ["--weights", weights, "--data", data, "--output", output, "--resamples", 0, "--workers", 0, *more]
    return cli.guarded(evalClassification.main, [str(word) for word in command])


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_patches_alone_give_the_logits_by_the_network_s_own_rule(tiny_chexpert, tmp_path, capsys, name):
    torch.manual_seed(0)
    sizes = {"patch_size": 32, "image_size": 64}
    model = build_model("timm/test_efficientnet", **sizes, labels=CHEXPERT, aggregation=name)
    for parameter in model.aggregation.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, tmp_path / "weights")
    assert evaluate(tmp_path / "weights", tiny_chexpert, tmp_path / "results", "--heatmaps", "none") == 0
    facts = json.loads((tmp_path / "results/run.json").read_text())
    assert facts["additivity"]["test"]["max_error"] < 1e-4 and facts["additivity"]["val"]["films"] == 6
    said = capsys.readouterr().out
    assert f"the film's logits ({name})" in said
    for split in ("val", "test"):
        certificates = facts["certificates"][split]
        assert (certificates["aggregation"], certificates["films"]) == (name, 6)
        assert certificates["complete"] == (name not in ("noisy_or", "logsumexp"))
        assert certificates["local"] == (name not in ("attention", "consensus"))
        assert certificates["linear"] or name not in ("mean", "position")
    assert ("they depend on neighbours" in said) == (name in ("attention", "consensus"))
