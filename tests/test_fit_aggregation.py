"""fitAggregation.py: whole weights whose trunk is the old one, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import cli
import evalClassification
import fitAggregation
from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model
from tests.networks import calibrate
from training.position_fit import fit_label
from training.split_films import read_splits


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT)
    calibrate(model, torch.rand(4, 1, 64, 64))
    with torch.no_grad():
        model.head.weight *= 30
    model.details |= {"thresholds": {"Edema": 0.5}, "training_data": {"films": 12}}
    folder = tmp_path_factory.mktemp("weights") / "MedicalPatchNet"
    save_model(model, folder)
    return folder


@pytest.fixture
def data(tiny_chexpert, tmp_path):
    """A copy, in which one label has no positive film."""
    folder = shutil.copytree(tiny_chexpert, tmp_path / "data")
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table["Fracture"] = "0.0"
    table.to_csv(folder / "train.csv", index=False)
    return folder


def fit(weights, data, output, *more):
    words = ["--weights", weights, "--data", data, "--output", output, "--workers", 0, "--device", "cpu", *more]
    return cli.guarded(fitAggregation.main, [str(word) for word in words])


def test_the_trunk_stays_and_the_weights_are_the_fit_s(weights, data, tmp_path, capsys):
    assert fit(weights, data, tmp_path / "fitted") == 0
    said = capsys.readouterr().out
    before, after = load_model(weights), load_model(tmp_path / "fitted")
    assert (after.aggregation.name, after.label_set) == ("position", before.label_set)
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    films, validation = read_splits(data)
    logits = []
    for part in (films, validation):  # one film after the other
        images = [FilmDataset(part, 64).image(i)[0][None] for i in range(len(part))]
        with torch.no_grad():
            logits.append(torch.cat([before.patch_logits(image) for image in images]).numpy())
    chosen = []
    for c, label in enumerate(before.labels):
        expected = fit_label((logits[0][..., c], films.labels[:, c]), (logits[1][..., c], validation.labels[:, c]))
        found = after.aggregation.weights[c].detach().flatten().numpy()
        np.testing.assert_allclose(found, expected.weights, rtol=1e-3, atol=1e-4, err_msg=label)
        chosen.append(expected.spread)
    assert max(chosen) > 0, "something was fitted"
    fracture = before.labels.index("Fracture")
    assert after.aggregation.deviation[fracture].abs().max() == 0 == after.aggregation.offset[fracture]
    assert "Fracture: keeps 1 / P (no positive film of training)" in said
    table = pd.read_csv(tmp_path / "fitted/position_fit.csv")
    assert table["label"].tolist() == list(before.labels) and table["spread"].tolist() == chosen


def test_the_description_says_what_was_done_and_drops_what_was_measured_before(weights, data, tmp_path):
    assert fit(weights, data, tmp_path / "fitted") == 0
    details = load_model(tmp_path / "fitted").details
    assert "thresholds" not in details and details["training_data"]["films"] == 12
    assert details["training_data"]["aggregation"].startswith("position weights per label, fitted to 12 films")
    record = json.loads((tmp_path / "fitted/run.json").read_text())
    assert record["stages"]["position_weights"]["options"] == {"uncertain": "zeros", "frontal_only": False}
    assert record["weights"]["sha256"] and record["command"]


def test_it_is_not_done_again_unless_something_changed(weights, data, tmp_path, capsys):
    output = tmp_path / "fitted"
    assert fit(weights, data, output) == 0
    made = (output / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert fit(weights, data, output) == 0
    assert capsys.readouterr().out == f"{output}: complete\n"
    assert (output / "model.safetensors").stat().st_mtime_ns == made
    assert fit(weights, data, output, "--uncertain", "ones") == 0
    assert (output / "model.safetensors").stat().st_mtime_ns > made
    (output / "model.safetensors").write_bytes(b"damaged")
    assert fit(weights, data, output) == 0
    assert load_model(output).aggregation.name == "position"


def test_it_is_evaluated_like_any_network(weights, data, tmp_path):
    assert fit(weights, data, tmp_path / "fitted") == 0
    words = ["--weights", tmp_path / "fitted", "--data", data, "--output", tmp_path / "results", "--resamples", 0]
    words += ["--heatmaps", "none", "--workers", 0, "--device", "cpu"]
    assert cli.guarded(evalClassification.main, [str(word) for word in words]) == 0
    certificates = json.loads((tmp_path / "results/run.json").read_text())["certificates"]["test"]
    assert certificates["complete"] and certificates["local"] and certificates["linear"]


def test_other_weights_are_not_overwritten(weights, data, tmp_path, capsys):
    copy = shutil.copytree(weights, tmp_path / "copy")
    for output in (copy, weights):
        assert fit(copy, data, output) == 2
    said = capsys.readouterr().err.splitlines()
    assert "the folder of --weights, which would be lost" in said[0] and "were not fitted here" in said[1]
    assert fit(weights, data, tmp_path / "fitted") == 0
    other = load_model(copy)
    with torch.no_grad():
        other.head.bias += 1
    save_model(other, copy)
    assert fit(copy, data, tmp_path / "fitted") == 2
    assert "holds results of other weights" in capsys.readouterr().err


def test_test_films_and_baselines_are_refused_in_one_line(weights, data, tmp_path, capsys):
    table, test = pd.read_csv(data / "train.csv", dtype=str), pd.read_csv(data / "test_labels.csv", dtype=str)
    stolen = table.iloc[0].copy()
    stolen["Path"] = "CheXpert-v1.0/" + test["Path"][0]
    pd.concat([table, stolen.to_frame().T]).to_csv(data / "train.csv", index=False)
    assert fit(weights, data, tmp_path / "a") == 2
    said = capsys.readouterr().err
    assert "test" in said and said.count("\n") == 1, said
    table.to_csv(data / "train.csv", index=False)
    baseline = build_model("timm/test_efficientnet", patch_size=64, image_size=64, labels=CHEXPERT)
    save_model(baseline, tmp_path / "baseline")
    assert fit(tmp_path / "baseline", data, tmp_path / "b") == 2
    assert "aggregation 'position' of one patch, the whole film" in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_logits_that_overflow_and_weights_of_nan_are_refused_in_one_line(weights, data, tmp_path, capsys):
    copy = shutil.copytree(weights, tmp_path / "copy")
    for value, words in ((3e38, "train.csv, line 2: the network's patch logits are not finite"), (np.nan, "holds NaN")):
        broken = load_model(weights)
        with torch.no_grad():
            broken.head.weight.fill_(value)
        save_model(broken, copy)
        assert fit(copy, data, tmp_path / "fitted") == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1, said
        assert not (tmp_path / "fitted/model.safetensors").exists()


def test_labels_of_neither_side_keep_the_mean(weights, data, tmp_path, capsys):
    for name in ("train.csv", "valid.csv"):
        table = pd.read_csv(data / name, dtype=str)
        table.drop(columns=["Edema"]).to_csv(data / name, index=False)
    (data / "dataset.json").write_text(
        json.dumps({"labels": [label for label in CHEXPERT.names if label != "Edema"], "blank": "negative"})
    )
    assert fit(weights, data, tmp_path / "fitted") == 0
    assert "Edema: keeps 1 / P (no column of it in train.csv)" in capsys.readouterr().out
    after = load_model(tmp_path / "fitted")
    assert after.aggregation.deviation[after.labels.index("Edema")].abs().max() == 0
    with pytest.raises(InputError, match="none of the network's labels"):
        films = read_splits(data)[0]
        model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("x", "y"))
        fitAggregation._with_position_weights(model, films)


def test_help_answers_within_a_second_with_a_command_to_copy():
    code = "import sys, fitAggregation as f\ntry: f.main(['--help'])\nfinally: print('torch' in sys.modules)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False" and "python fitAggregation.py --weights demo/" in done.stdout
    assert time.monotonic() - started < 5
