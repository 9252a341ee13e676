"""The table of predictions and fine maps, against numbers from the files."""

import numpy as np
import pandas as pd
import pytest

import evalClassification
from cxr.labels import LabelSet
from cxr.predictions import Predictions, write_map_predictions, write_predictions
from reporting.format import interval, number
from reporting.reading import read_results
from reporting.tables.map_predictions_table import map_predictions_table

LABELS = LabelSet.of(("Edema", "Mass"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 films; the maps are of 40 of them, in another order, and of one label."""
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    for first, split in enumerate(("val", "test")):
        labels = (rng.random((60, 2)) < 0.5).astype(float)
        logits = rng.normal(size=(60, 2)) + labels
        paths = tuple(f"{split}/patient{first}{i:04d}/study1/view1_frontal.jpg" for i in range(60))
        write_predictions(
            root / f"patch/predictions_{split}.csv", Predictions(paths, 1 / (1 + np.exp(-logits)), labels, LABELS)
        )
        kept = rng.permutation(60)[:40]
        of_maps = logits[kept, :1] + rng.normal(size=(40, 1))
        made = Predictions(
            tuple(paths[i] for i in kept), 1 / (1 + np.exp(-of_maps)), labels[kept, :1], LABELS.restrict(("Edema",))
        )
        write_map_predictions(root / f"patch/map_predictions_{split}.csv", made, rng.random((40, 1)), of_maps)
    for source in ("unshifted", "grid"):
        arguments = ["--predictions", str(root / "patch"), "--resamples", "30", "--predict-from", source]
        assert evalClassification.main(arguments) == 0
    return root


def test_both_predictions_stand_side_by_side(folder):
    results = read_results(folder)
    table = map_predictions_table(results, results.patch, "drawn films")
    row, *means = table.blocks[0].rows
    assert [cells[0].text for cells in means] == ["Mean (CheXlocalize 1)"]
    first, second = (
        pd.read_csv(folder / f"patch/{name}.csv").set_index(["label", "metric", "rule"]).loc["Edema", "auroc", "-"]
        for name in ("classification_test", "map_classification_test")
    )
    own = pd.read_csv(folder / "patch/predictions_test.csv").set_index("Path")
    maps = pd.read_csv(folder / "patch/map_predictions_test.csv").set_index("Path")
    p, q = own.loc[maps.index, "prob Edema"], maps["prob Edema"]
    distance = (np.log(p / (1 - p)) - np.log(q / (1 - q))).abs().mean()
    expected = [interval(of.value, of.ci_low, of.ci_high) for of in (first, second)]
    expected += [number(v) for v in (distance, maps["sd Edema"].mean(), ((p > 0.5) != (q > 0.5)).mean())]
    assert [cell.text for cell in row] == ["Edema (*)", *expected] and distance > 0.1
    assert (
        "full-size films" in table.notes[-1] and "another number" in table.caption and "(drawn films)" in table.caption
    )


def test_without_maps_there_is_no_table(folder, tmp_path):
    (tmp_path / "patch").mkdir()
    for path in folder.glob("patch/[!m]*.csv"):
        (tmp_path / "patch" / path.name).write_bytes(path.read_bytes())
    results = read_results(tmp_path)
    assert map_predictions_table(results, results.patch) is None
