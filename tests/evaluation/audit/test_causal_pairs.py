"""The causal test's table."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from cxr.names import CHANCE
from evaluation.audit.causal_pairs import _correlations, pair_rows, pair_table


def table_of(pairs: int = 6, labels=("Edema", "Pneumonia"), seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    inside = np.zeros((8, 8), np.float32)
    inside[2:4, 2:6] = 1
    rows = []
    for label in labels:
        for number in range(pairs):
            logit = float(rng.normal())
            exact, noise = logit * inside, rng.normal(size=(8, 8))
            rows += pair_rows(f"{label}{number}", label, logit, {"exact": exact, "noise": noise}, inside)
    return pd.DataFrame(rows)


def test_rows_of_a_pair():
    inside = np.zeros((4, 4))
    inside[0, :2] = [1, 0.5]
    change = np.zeros((4, 4))
    change[0, 0], change[0, 1], change[3, 3] = 3.0, -2.0, -4.0
    (row,) = pair_rows("film", "Edema", 0.7, {"raw": change}, inside)
    assert row["inside"] == pytest.approx((3 - 1) / 16)
    assert row["inside_share"] == pytest.approx((3 + 1) / 9) and row["mask_share"] == pytest.approx(1.5 / 16)
    assert row["same_sign"] == 1
    (nothing,) = pair_rows("film", "Edema", 0.7, {"raw": np.zeros((4, 4))}, inside)
    assert math.isnan(nothing["inside_share"]) and math.isnan(nothing["same_sign"]) and nothing["inside"] == 0


def test_a_map_that_changes_as_the_logit_does_agrees_with_it():
    rows = table_of()
    table = pair_table(rows, resamples=200, seed=0).set_index(["metric", "method", "label"]).sort_index()
    exact = table.loc["agreement", "exact"].loc[["Edema", "Pneumonia", "Mean"]]
    assert exact["value"].tolist() == pytest.approx([1, 1, 1]) and exact["pairs"].tolist() == [6, 6, 12]
    assert table.loc[("inside", "exact", "Mean"), "value"] == pytest.approx(1)
    assert table.loc[("sign", "exact", "Edema"), "value"] == 1
    assert table.loc[("inside", CHANCE, "Edema"), "value"] == pytest.approx(8 / 64)
    noise = rows[(rows["method"] == "noise") & (rows["label"] == "Edema")]
    expected = spearmanr(noise["logit_change"], noise["inside"]).statistic
    row = table.loc["agreement", "noise", "Edema"]
    assert row["value"] == pytest.approx(expected) and row["ci_low"] <= row["value"] <= row["ci_high"]
    changes = rows[rows["method"] == "exact"].groupby("label")["logit_change"].mean()
    assert table.loc[("logit change", "", "Edema"), "value"] == pytest.approx(changes["Edema"])


def test_two_pairs_have_no_correlation():
    table = pair_table(table_of(pairs=2), resamples=20, seed=0)
    rows = table[(table["metric"] == "agreement") & (table["label"] == "Edema")]
    assert rows["value"].isna().all() and set(rows["note"]) == {"fewer than 3 pairs"}


def test_weighted_correlations_are_those_of_repeated_values():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 7))
    weights = rng.multinomial(7, np.full(7, 1 / 7), size=20).T.astype(float)
    found = _correlations(a, b, weights)
    for column, value in zip(weights.T, found, strict=True):
        times = column.astype(int)
        assert value == pytest.approx(np.corrcoef(np.repeat(a, times), np.repeat(b, times))[0, 1])
    assert np.isnan(_correlations(a, np.ones(7), weights)).all()
