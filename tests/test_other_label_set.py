"""Three labels and another patient rule go through the whole chain, and no module knows of them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
import evalClassification
import evalLocalization
import makeReport
import predictImage
import trainClassification
from preprocessing import preProcFilms
from saliency.evidence.evidence_files import read_facts
from tests.films import film_pixels

LABELS = ("ICU", "Device", "Old fracture")
FILMS = 36
SIDE = 48


def run(script, *arguments: object) -> int:
    return cli.guarded(script.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def ward(tmp_path_factory) -> Path:
    """A manifest of a hospital's own: flat names, patients in a column, blanks, boxes for one label."""
    root = tmp_path_factory.mktemp("ward")
    rng = np.random.default_rng(0)
    rows, regions = [], {}
    for number in range(FILMS):
        patient = f"P{number // 2:03d}"
        split = ("train", "train", "train", "train", "val", "test")[number // 2 % 6]
        values = [str((number // 12 + place) % 2) for place in range(3)]  # both in every split
        if number == 1:
            values[2] = ""  # not labelled
        name = f"1.2.840.{number}.png"
        pixels = film_pixels(64, 80, seed=number).copy()
        if values[1] == "1":
            pixels[20:40, 30:60] = 255
        Image.fromarray(pixels).save(root / name)
        facts = {"Path": name, "Patient": patient, "Split": split, "View": "AP", "Sex": "FM"[number % 2], "Age": "61"}
        rows.append(facts | dict(zip(LABELS, values, strict=True)))
        boxes = [[30, 20, 30, 20]] if values[1] == "1" else []
        regions[name.removesuffix(".png")] = {"Device": {"size": [64, 80], "boxes": boxes, "kind": "box"}}
    rng.shuffle(rows)
    with open(root / "films.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    facts = {"name": "ward", "labels": list(LABELS), "groups": {"lines": ["Device"]}, "tasks": {"Device": "Device"}}
    (root / "dataset.json").write_text(json.dumps(facts | {"blank": "not labelled", "grey": {"rule": "stored"}}))
    (root / "regions.json").write_text(json.dumps(regions))
    return root


@pytest.fixture(scope="module")
def chain(ward, tmp_path_factory) -> Path:
    """Preprocessed films, both networks trained and evaluated, maps scored, the report written."""
    root = tmp_path_factory.mktemp("chain")
    assert run(preProcFilms, "--manifest", ward, "--output", root / "films", "--size", SIDE, "--workers", 1) == 0
    common = ["--backbone", "timm/test_efficientnet", "--init", "random", "--image-size", 32, "--epochs", 1]
    common += ["--batch-size", 4, "--workers", 0, "--device", "cpu", "--no-evaluation"]
    for name, patch_size in (("patch", 16), ("whole", 32)):
        weights = root / "weights" / name
        training = ["--data", root / "films", "--output", weights, "--patch-size", patch_size, *common]
        assert run(trainClassification, *training) == 0
        evaluating = ["--weights", weights, "--data", root / "films", "--chexlocalize", ward, "--workers", 0]
        evaluating += ["--output", root / "results" / name, "--resamples", 50, "--resample-unit", "patient"]
        assert run(evalClassification, *evaluating, "--steps-per-patch", 4, "--no-pickles") == 0
    folders = (root / "results/patch", root / "results/whole")
    assert run(evalLocalization, *folders, "--chexlocalize", ward, "--resamples", 20, "--workers", 1) == 0
    compare = ["--predictions", folders[0], "--compare", folders[1], "--resamples", 50, "--resample-unit", "patient"]
    assert run(evalClassification, *compare) == 0
    assert run(makeReport, root / "results", "--figures", "--gt-path", ward / "regions.json") == 0
    return root


def test_predictions_are_those_of_the_three_labels(chain, ward):
    table = pd.read_csv(chain / "results/patch/predictions_test.csv", dtype=str, keep_default_na=False)
    columns = [f"prob {label}" for label in LABELS] + [f"label {label}" for label in LABELS]
    assert [name for name in table.columns if name.startswith(("prob ", "label "))] == columns
    given = pd.read_csv(ward / "films.csv", dtype=str, keep_default_na=False).set_index("Path")
    assert set(table["Path"]) == set(given.index[given["Split"] == "test"])
    for label in LABELS:
        assert list(table[f"label {label}"]) == list(given.loc[table["Path"], label])
    assert list(table["Patient"]) == list(given.loc[table["Path"], "Patient"])


def test_tables_name_what_their_means_cover(chain):
    table = pd.read_csv(chain / "results/patch/classification_test.csv")
    assert set(table["label"]) == {*LABELS, "Mean (3)", "Mean (lines 1)"}
    comparison = pd.read_csv(chain / "results/comparison_patch_vs_whole.csv")
    assert set(comparison["label"]) == {*LABELS, "Mean (3)", "Mean (lines 1)"}


def test_labels_travel_with_the_weights(chain):
    config = json.loads((chain / "weights/patch/config.json").read_text())
    assert config["labels"] == list(LABELS)
    assert config["label_set"]["groups"] == {"lines": ["Device"]}


def test_boxes_are_scored_and_said_to_be_boxes(chain):
    folder = chain / "results/patch/localization/corrected/raw"
    hits = pd.read_csv(folder / "hitmiss_results_per_cxr.csv")
    assert [name for name in hits.columns if name != "img_id"] == ["Device"]
    assert hits["Device"].notna().sum() > 0
    assert set(pd.read_csv(folder / "hitmiss_summary_results.csv")["kind"].dropna()) == {"box"}


def test_the_report_shows_them(chain):
    page = (chain / "results/report/report.html").read_text()
    assert "Old fracture" in page and "Cardiomegaly" not in page.split("Paper", 1)[0]
    assert "Mean (3)" in (chain / "results/report/table1_per_label.csv").read_text()


def test_a_single_film_is_predicted_by_its_labels(chain, ward, capsys):
    command = [ward / "1.2.840.0.png", "--weights", chain / "weights/patch", "--output", chain / "one", "--workers", 0]
    assert run(predictImage, *command) == 0
    printed = capsys.readouterr().out
    assert all(label in printed for label in LABELS)
    assert set(pd.read_csv(chain / "one/predictions.csv")["label"]) == set(LABELS)


def test_a_data_set_without_outlines_has_predictions_and_says_why_it_has_no_maps(chain, ward, tmp_path, capsys):
    shutil.copytree(ward, tmp_path / "ward")
    facts = json.loads((ward / "dataset.json").read_text()) | {"tasks": {}}
    (tmp_path / "ward/dataset.json").write_text(json.dumps(facts))
    command = ["--weights", chain / "weights/patch", "--data", chain / "films", "--chexlocalize", tmp_path / "ward"]
    command += ["--workers", 0, "--resamples", 10, "--output", tmp_path / "results"]
    assert run(evalClassification, *command) == 0
    said = capsys.readouterr().out
    assert "no heat maps of test: of its labels none is outlined; --all-labels makes those of all" in said
    assert (tmp_path / "results/classification_test.csv").is_file()
    assert not (tmp_path / "results/evidence").exists()


def test_results_follow_what_dataset_json_says_of_the_same_table(chain, ward, tmp_path):
    folders = {"data": tmp_path / "films", "chexlocalize": tmp_path / "ward"}
    for folder, source in zip(folders.values(), (chain / "films", ward), strict=True):
        shutil.copytree(source, folder)
        rows = pd.read_csv(folder / "films.csv", dtype=str, keep_default_na=False)
        rows.loc[(rows["Split"] == "test") & (rows["Old fracture"] == "0"), "Old fracture"] = ""
        rows.to_csv(folder / "films.csv", index=False)
    command = ["--weights", chain / "weights/patch", "--output", tmp_path / "made", "--steps-per-patch", 1]
    command += ["--workers", 0, "--resamples", 10, "--no-pickles", "--all-labels"]

    def evaluated(**facts: object) -> tuple[pd.DataFrame, pd.DataFrame, list[int]]:
        for folder in folders.values():
            path = folder / "dataset.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | facts))
        assert run(evalClassification, *command, *(f"--{name}={path}" for name, path in folders.items())) == 0
        tables = [pd.read_csv(tmp_path / f"made/{start}predictions_test.csv") for start in ("", "map_")]
        files = sorted((tmp_path / "made/evidence/test").glob("*.npz"))
        return *tables, sorted(read_facts(file).ground_truth["Old fracture"] for file in files)

    *tables, noted = evaluated()
    assert set(noted) == {-1, 1} and all(table["label Old fracture"].isna().any() for table in tables)
    *tables, noted = evaluated(blank="negative")
    assert set(noted) == {0, 1} and all(sorted(table["label Old fracture"]) == noted for table in tables)
    *tables, _ = evaluated(labels=["ICU", "Device"])
    assert "label Old fracture" not in tables[0]
