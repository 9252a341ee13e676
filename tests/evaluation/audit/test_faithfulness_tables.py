"""The audit's tables: rows of one film, means with intervals, curves."""

import math

import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from cxr.labels import LabelSet
from cxr.masks import GroundTruth, encode_mask
from cxr.names import CHANCE
from cxr.predictions import Predictions, write_predictions
from evaluation.audit.faithfulness import BEST, area_gains, closed_curves, pixel_ranking
from evaluation.audit.faithfulness_tables import (
    CropMask,
    CurveMeans,
    FilmFacts,
    film_resampling,
    score_mask,
    score_task,
    summary_table,
    with_grid_pointing,
)
from evaluation.film_statistics import of_films

SIDE, SIZE = 4, 32


def facts(film: str = "film0", linear: bool = True) -> FilmFacts:
    body = np.ones((SIZE, SIZE), bool)
    body[:, :8] = False
    return FilmFacts(film, body, linear)


def scored(film: str = "film0", seed: int = 0, linear: bool = True):
    rng = np.random.default_rng(seed)
    drops = {"black": rng.normal(size=(SIDE, SIDE)), "mean": rng.normal(size=(SIDE, SIDE))}
    patches = {"exact": drops["black"], "noise": rng.normal(size=(SIDE, SIDE))}
    maps = {name: np.kron(values, np.ones((8, 8))).astype(np.float32) for name, values in patches.items()}
    curves = closed_curves(patches, drops) if linear else {}
    return score_task(facts(film, linear), "Edema", maps, patches, drops, curves), drops, maps


def test_rows_hold_every_measure_of_every_method():
    found, drops, maps = scored()
    inside = np.zeros((SIZE, SIZE), np.float32)
    inside[:12, 8:16] = 1
    score_mask(found.rows, maps, CropMask(inside, (32.0, 96.0), inside > 0))
    rows = {row["method"]: row for row in found.rows}
    assert list(rows) == ["exact", "noise", CHANCE]
    assert rows["exact"]["correlation black"] == rows["exact"]["deletion black"] == rows["exact"]["top1 black"] == 1
    assert abs(rows["exact"]["infidelity black"]) < 1e-9 and rows["exact"]["infidelity mean"] > 0.5
    assert abs(rows["noise"]["correlation black"]) < 1
    assert rows[CHANCE]["energy"] == 96 / SIZE**2 and rows[CHANCE]["auprc"] == 128 / (SIZE**2 + 128)
    assert rows[CHANCE]["outside"] == 0.25
    assert rows[CHANCE]["top1 black"] == 1 / 16
    positive = np.clip(maps["noise"], 0, None)
    assert rows["noise"]["outside"] == pytest.approx(positive[:, :8].sum() / positive.sum())
    assert rows["noise"]["energy"] == pytest.approx(positive[:12, 8:16].sum() / positive.sum())
    assert (rows["noise"]["auroc"], rows["noise"]["auprc"]) == pixel_ranking(maps["noise"], inside, (32.0, 96.0))
    np.testing.assert_allclose(found.curves["Edema"][BEST, "mean"][1][1], -drops["mean"].max())
    gains = area_gains(found.curves["Edema"]["noise", "mean"], found.curves["Edema"][CHANCE, "mean"])
    assert (rows["noise"]["deletion_gain mean"], rows["noise"]["insertion_gain mean"]) == gains
    assert rows[CHANCE]["deletion_gain black"] == 0


def test_without_a_mask_and_without_linearity_what_they_need_is_left_out():
    found, _, _ = scored(linear=False)
    assert not found.curves
    for row in found.rows:
        assert {"correlation black", "infidelity mean", "border", "outside"} <= set(row)
        assert not {"energy", "auroc", "auprc", "deletion black", "insertion mean"} & set(row)


def test_means_and_notes():
    rows = [row for i in range(5) for row in scored(f"film{i}", seed=i)[0].rows]
    table = pd.DataFrame(rows)
    table.loc[(table["Film"] == "film2") & (table["method"] == "noise"), "correlation black"] = np.nan
    reasons = {"gridpg": "needs something else"}
    summary = summary_table(
        table, ["exact", "noise"], ["Edema", "Pneumonia"], of_films(5, resamples=50, seed=0), reasons
    )
    chosen = summary[(summary["metric"] == "correlation") & (summary["fill"] == "black")].set_index(["method", "label"])
    expected = table[table["method"] == "noise"]["correlation black"].mean()
    assert chosen.loc[("noise", "Edema"), "value"] == pytest.approx(expected)
    assert chosen.loc[("noise", "Edema"), "films"] == 4 and chosen.loc[("noise", "Edema"), "note"] == "1 more undefined"
    low, high = chosen.loc[("noise", "Edema"), ["ci_low", "ci_high"]]
    assert low < expected < high
    assert math.isnan(chosen.loc[("noise", "Pneumonia"), "value"])
    assert chosen.loc[("exact", "Mean"), "value"] == 1 and "over 1 of 2 tasks" in chosen.loc[("exact", "Mean"), "note"]
    assert summary[summary["metric"] == "gridpg"]["note"].tolist() == ["needs something else"]
    assert list(summary.columns)[-1] == "note"


def test_curves_are_means_over_films_and_then_over_labels():
    means = CurveMeans()
    curves = [{"Edema": {("raw", "black"): np.array([[0, 8, 16], [0, v, 2 * v], [5, 6, 7]])}} for v in (1.0, 3.0)]
    other = {"Pneumonia": {("raw", "black"): np.array([[0, 8, 16], [0, 8, 9], [7, 8, 9]])}}
    for of_film in (*curves, other):
        means.add(of_film)
    table = means.table().set_index(["label", "patches"])
    assert table.loc["Edema", "deletion"].tolist() == [0, 2, 4] and table.loc[("Edema", 0), "films"] == 2
    assert table.loc["Mean", "deletion"].tolist() == [0, 5, 6.5] and table.loc["Mean", "share"].tolist() == [0, 0.5, 1]
    assert table.loc["Mean", "insertion"].tolist() == [6, 7, 8] and table.loc["Mean"].index.tolist() == [0, 8, 16]
    assert CurveMeans().table().empty


def test_grids_give_a_share_to_the_films_with_the_finding():
    rows = [{"Film": f"film{i}", "label": "Edema", "method": m} for i in range(5) for m in ("patches", CHANCE)]
    evidence = {("Edema", "patches"): {f"film{i}": (float(i + 1), int(i < 2)) for i in range(5)}}
    table = with_grid_pointing(rows, evidence, seed=0).set_index(["method", "Film"])["gridpg"]
    assert table["patches", "film0"] == pytest.approx(1 / (1 + 3 + 4 + 5))
    assert table["patches", "film1"] == pytest.approx(2 / (2 + 3 + 4 + 5))
    assert table["patches"][["film2", "film3", "film4"]].isna().all() and table[CHANCE, "film1"] == 0.25
    assert "gridpg" not in with_grid_pointing(rows, {}, seed=0)


def test_a_mask_is_averaged_over_the_pixels_of_the_crop():
    """A film of 60 x 90 px, whose crop are the columns 15 to 74; maps of 20 px."""
    mask = np.random.default_rng(0).random((60, 90)) < 0.3
    truth = GroundTruth({"film": {"Edema": encode_mask(mask), "Pneumonia": encode_mask(np.zeros((60, 90)))}})
    found = CropMask.of(truth, "film", "Edema", 20)
    np.testing.assert_allclose(found.inside, mask[:, 15:75].reshape(20, 3, 20, 3).mean(axis=(1, 3)), atol=1e-6)
    beyond = np.concatenate([mask[:, :15], mask[:, 75:]], axis=1)
    assert found.unseen == pytest.approx((beyond.sum() / 9, (~beyond).sum() / 9))
    assert found.share == pytest.approx(mask.mean())
    for row, column in np.random.default_rng(1).integers(0, 20, (30, 2)):
        highest = np.zeros((20, 20))
        highest[row, column] = 1
        assert found.hit(highest) == mask[3 * row + 1, 15 + 3 * column + 1]  # the centre of 3 x 3 film pixels
    assert CropMask.of(truth, "film", "Pneumonia", 20) is None
    assert CropMask.of(truth, "another", "Edema", 20) is None
    assert CropMask.of(truth, "film", "Lung Lesion", 20) is None


def test_patients_are_resampled_with_all_their_films(tmp_path):
    films = ["patient1_study1_view1_frontal", "patient2_study1_view1_frontal", "patient1_study1_view2_lateral", "scan7"]
    drawn = film_resampling(tmp_path, films[:3], None, resamples=10, seed=0, unit="patient")
    assert drawn.units.tolist() == [0, 1, 0] and drawn.unit == "patient"
    assert film_resampling(tmp_path, films, None, resamples=10, seed=0, unit="film").units.tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="scan7: its patient is unknown"):
        film_resampling(tmp_path, films, None, resamples=10, seed=0, unit="patient")
    paths = tuple(f"{film}.jpg" for film in films)
    known = Predictions(paths, np.full((4, 1), 0.5), np.zeros((4, 1)), LabelSet.of(("Edema",)),
                        ids=tuple(films), patients=("a", "b", "a", "b"))  # fmt: skip
    write_predictions(tmp_path / "predictions_test.csv", known)
    assert film_resampling(tmp_path, films, None, resamples=1, seed=0, unit="patient").units.tolist() == [0, 1, 0, 1]
