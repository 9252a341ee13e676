"""Network outputs, tables, thresholds and heat maps meet by label name: order, subset, superset, foreign names."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cli
import evalClassification
import evalLocalization
from cxr.files import write_json
from cxr.labels import CHEXPERT, LabelSet
from cxr.masks import encode_mask
from cxr.predictions import Predictions, read_predictions, write_predictions
from cxr.thresholds import read_thresholds
from models.checkpoint import build_model, save_model
from tests.films import alternating_labels, write_film, write_labels
from tests.networks import calibrate

LABELS = CHEXPERT.names
ENGLISH = ("Mass", "Pleural_Thickening", "Nodule")


def run(script, *arguments):
    return cli.guarded(script.main, [str(argument) for argument in arguments])


def network(labels, rows, folder):
    """A small network whose outputs of `labels` are the rows of one fixed head of 15."""
    torch.manual_seed(0)
    names = labels if isinstance(labels, LabelSet) else tuple(labels)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=names)
    calibrate(model, torch.rand((4, 1, 64, 64), generator=torch.Generator().manual_seed(2)))
    head = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(rows)][
        -1
    ]
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(15, head.in_features, generator=generator), torch.randn(15, generator=generator)
    with torch.no_grad():
        head.weight.copy_(weight[list(rows)])
        head.bias.copy_(bias[list(rows)])
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def chexlocalize(tmp_path_factory):
    """Two films per split in CheXlocalize's layout, the columns of its labels in an order of their own."""
    root = tmp_path_factory.mktemp("chexlocalize")
    for split, folder, prefix, first in (("val", "val", "CheXpert-v1.0/valid", 64541), ("test", "test", "test", 64741)):
        paths = []
        for i in range(2):
            inside = f"patient{first + i}/study1/view1_frontal"
            write_film(root / "CheXpert" / folder / f"{inside}.jpg", 80, 64, seed=first + i)
            paths.append(f"{prefix}/{inside}.jpg")
        write_labels(root / f"CheXpert/{split}_labels.csv", paths, alternating_labels(2), split == "val")
    return root


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_chexpert, chexlocalize):
    """Evaluates a network once: (its results folder)."""
    root = tmp_path_factory.mktemp("labels")
    networks = {
        "plain": (LABELS, range(14)),
        "reversed": (LABELS[::-1], range(13, -1, -1)),
        "fewer": (LABELS[3:8], range(3, 8)),
        "more": (("Scoliosis", *LABELS), (14, *range(14))),
    }
    for name, (labels, rows) in networks.items():
        weights = network(labels, list(rows), root / "weights" / name)
        command = ["--weights", weights, "--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--no-pickles"]
        command += ["--output", root / name, "--steps-per-patch", 2, "--resamples", 30, "--workers", 0]
        assert run(evalClassification, *command) == 0
    return root


def evidence(folder):
    """{film: {array: values}} of the test films, and the facts of one."""
    return {path.name: dict(np.load(path)) for path in sorted((folder / "evidence/test").iterdir())}


@pytest.mark.parametrize("name", ["reversed", "more"])
def test_the_same_network_with_other_labels_gives_the_same_files(results, name):
    for split in ("val", "test"):
        for file in ("predictions", "classification", "roc", "calibration"):
            one, other = (results / folder / f"{file}_{split}.csv" for folder in ("plain", name))
            assert one.read_bytes() == other.read_bytes()
    assert (results / "plain/thresholds.json").read_bytes() == (results / name / "thresholds.json").read_bytes()
    for film, arrays in evidence(results / "plain").items():
        turned = evidence(results / name)[film]
        assert {key for key in arrays if key.startswith("grid ")} == {f"grid {task}" for task in CHEXPERT.task_names}
        for key, values in arrays.items():
            if key != "facts":
                np.testing.assert_array_equal(values, turned[key])
        facts, others = (json.loads(str(content["facts"])) for content in (arrays, turned))
        assert facts["probability"] == others["probability"] and facts["ground_truth"] == others["ground_truth"]


def test_fewer_labels_give_the_same_numbers_under_the_same_names(results):
    plain, fewer = (read_predictions(results / name / "predictions_test.csv") for name in ("plain", "fewer"))
    assert fewer.names == LABELS[3:8]
    np.testing.assert_array_equal(fewer.probabilities, plain.restrict(LABELS[3:8]).probabilities)
    np.testing.assert_array_equal(fewer.labels, plain.restrict(LABELS[3:8]).labels)
    thresholds = [read_thresholds(results / name / "thresholds.json") for name in ("plain", "fewer")]
    assert list(thresholds[1]) == list(LABELS[3:8]) and thresholds[1].items() <= thresholds[0].items()
    tables = [pd.read_csv(results / name / "classification_test.csv") for name in ("plain", "fewer")]
    of_labels = [table[table.label.isin(LABELS[3:8])].reset_index(drop=True) for table in tables]
    pd.testing.assert_frame_equal(*of_labels)
    assert set(tables[1].label) - set(LABELS) == {"Mean (5)", "Mean (CheXlocalize 4)"}


def test_what_the_table_lacks_is_said_in_one_line(results, tiny_chexpert, tmp_path, capsys):
    command = [
        "--weights",
        results / "weights/more",
        "--data",
        tiny_chexpert,
        "--output",
        tmp_path,
        "--heatmaps",
        "none",
    ]
    assert run(evalClassification, *command, "--resamples", 0, "--workers", 0) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(said) == 2 and all("no column of 'Scoliosis'" in line for line in said)


def test_no_shared_label_is_one_line(tiny_chexpert, tmp_path, capsys):
    weights = network(ENGLISH, [0, 1, 2], tmp_path / "weights")
    command = ["--weights", weights, "--data", tiny_chexpert, "--output", tmp_path / "r", "--heatmaps", "none"]
    assert run(evalClassification, *command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "none of the network's labels ('Mass', " in said and "valid.csv" in said


def test_comparison_of_networks_of_other_labels(results, capsys):
    assert (
        run(evalClassification, "--predictions", results / "plain", "--compare", results / "fewer", "--resamples", 30)
        == 0
    )
    table = pd.read_csv(results / "comparison_plain_vs_fewer.csv")
    assert set(table.label) == {*LABELS[3:8], "Mean (5)", "Mean (CheXlocalize 4)"}
    assert (table.difference.dropna() == 0).all()
    assert "compared without 'Atelectasis', 'Cardiomegaly'" in capsys.readouterr().out


@pytest.fixture
def manifest(tmp_path):
    """A data set of three labels with its own ids and patients, not every film labelled; regions by box and mask."""
    root, rng = tmp_path / "manifest", np.random.default_rng(0)
    rows, regions = [], {}
    for number in range(16):
        split = "val" if number < 8 else "test"
        write_film(root / f"images/{number:03d}.png", 80, 64, seed=number)
        labels = ["" if rng.random() < 0.2 else str(int(value)) for value in rng.random(3) < 0.5]
        rows.append([f"images/{number:03d}.png", f"film-{number}", f"case {number // 2}", split, *labels])
        box = {"size": [64, 80], "kind": "box", "boxes": [[10 + number, 12, 30, 20]]}
        regions[f"film-{number}"] = {"Mass": box, "Pleural_Thickening": encode_mask(np.eye(64, 80) > 0)}
    regions["film-9"].pop("Mass")
    columns = ["Path", "Film", "Patient", "Split", *ENGLISH]
    pd.DataFrame(rows, columns=columns).to_csv(root / "films.csv", index=False)
    names = {"labels": list(ENGLISH), "groups": {"Round": ["Mass", "Nodule"]}, "tasks": {t: t for t in ENGLISH[:2]}}
    write_json(root / "dataset.json", {"name": "three", **names, "blank": "not labelled"})
    write_json(root / "regions.json", regions)
    return root


def test_three_labels_go_through_evaluation_and_localization(manifest, tmp_path, capsys):
    labels = LabelSet(ENGLISH, {"Round": ("Mass", "Nodule")}, {task: task for task in ENGLISH[:2]})
    weights = network(LabelSet(ENGLISH[::-1], labels.groups, labels.tasks), [2, 1, 0], tmp_path / "weights")
    for kind in ("pickles", "evidence"):
        command = [
            "--weights",
            weights,
            "--data",
            manifest,
            "--chexlocalize",
            manifest,
            "--output",
            tmp_path / kind / "net",
        ]
        command += ["--steps-per-patch", 2, "--resamples", 40, "--resample-unit", "patient", "--workers", 0]
        assert run(evalClassification, *command, *(["--no-pickles"] if kind == "evidence" else [])) == 0
        assert (
            run(
                evalLocalization, tmp_path / kind / "net", "--chexlocalize", manifest, "--resamples", 20, "--workers", 1
            )
            == 0
        )
    folder = tmp_path / "evidence/net"
    predictions = read_predictions(folder / "predictions_test.csv")
    assert predictions.names == ENGLISH and predictions.ids[0] == "film-8" and predictions.patients[0] == "case 4"
    given = pd.read_csv(manifest / "films.csv")[8:]
    np.testing.assert_array_equal(predictions.labels, given[list(ENGLISH)].to_numpy())
    table = pd.read_csv(folder / "classification_test.csv")
    assert list(table.label.unique()) == [*ENGLISH, "Mean (3)", "Mean (Round 2)"]
    target = folder / "localization/corrected/raw"
    per_film = pd.read_csv(target / "tp_fp_fn/iou_results_per_cxr.csv").set_index("img_id")
    assert list(per_film.columns) == ["Mass", "Pleural_Thickening"] and set(per_film.index) == set(given.Film)
    assert np.isnan(per_film.loc["film-9", "Mass"]) and per_film.drop("film-9").notna().all(axis=None)
    summary = pd.read_csv(target / "iou_summary_results.csv")
    assert list(summary["kind"]) == ["box", "mask", "box/mask"]
    scored = [path.relative_to(folder) for path in folder.rglob("*_results.csv")]
    kinds = 2 * 2 + 2  # raw and scaled in both protocols, relative and posterior in the corrected one
    assert len(scored) == kinds * (2 * 2 + 1)  # threshold and IoU of both countings, hits
    for path in scored:
        assert (folder / path).read_bytes() == (tmp_path / "pickles/net" / path).read_bytes(), path


def test_patients_in_both_splits_are_refused_with_the_films(manifest, tmp_path, capsys):
    table = pd.read_csv(manifest / "films.csv", dtype=str, keep_default_na=False)
    table.loc[8, "Patient"] = table.loc[7, "Patient"]
    table.to_csv(manifest / "films.csv", index=False)
    weights = network(ENGLISH, [0, 1, 2], tmp_path / "weights")
    command = ["--weights", weights, "--data", manifest, "--output", tmp_path / "r", "--heatmaps", "none"]
    assert run(evalClassification, *command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'case 3'" in said and "line 10" in said and "on line 8" in said


def given(folder, val, test):
    """A results folder with predictions of films and patients named in `val` and `test`."""
    rng = np.random.default_rng(0)
    for split, films in (("val", val), ("test", test)):
        paths = tuple(f"{film}.png" for film, _ in films)
        labels = (rng.random((len(films), 3)) < 0.5).astype(float)
        made = Predictions(
            paths, rng.random(labels.shape), labels, LabelSet.of(ENGLISH), patients=tuple(p for _, p in films)
        )
        write_predictions(folder / f"predictions_{split}.csv", made)
    return folder


def test_one_file_for_both_splits_is_refused_and_shared_patients_are_warned_of(tmp_path, capsys):
    apart = given(tmp_path / "apart", [(f"a{i}", f"p{i}") for i in range(9)], [(f"b{i}", f"q{i}") for i in range(9)])
    assert run(evalClassification, "--predictions", apart, "--resamples", 0) == 0
    assert "warning" not in capsys.readouterr().out
    shared = given(
        tmp_path / "shared", [(f"a{i}", f"p{i}") for i in range(9)], [(f"b{i}", f"p{i + 7}") for i in range(9)]
    )
    assert run(evalClassification, "--predictions", shared, "--resamples", 0) == 0
    assert "2 patients are in both validation and test, such as 'p7'" in capsys.readouterr().out
    (apart / "predictions_test.csv").write_bytes((apart / "predictions_val.csv").read_bytes())
    assert run(evalClassification, "--predictions", apart, "--resamples", 0) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "hold the same films" in said
