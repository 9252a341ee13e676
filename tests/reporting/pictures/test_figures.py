"""What the classification figures show, read off their artists, and the files they are saved to."""

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import norm

from cxr.labels import CHEXPERT
from cxr.tables import write_csv
from reporting.label_words import ordered
from reporting.pictures.figures import (
    auroc_figure,
    reliability_figure,
    roc_figure,
    wilson,
)
from reporting.pictures.style import COLOURS, save, style
from reporting.reading import read_results


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def lines(axes, colour):
    return [line for line in axes.lines if to_hex(line.get_color()).upper() == colour.upper()]


def test_figure_1_shows_every_label_with_its_interval(folder):
    path = folder / "MedicalPatchNet" / "classification_test.csv"
    table = pd.read_csv(path)
    chosen = (table["label"] == "Atelectasis") & (table["metric"] == "auroc")
    table.loc[chosen, ["value", "ci_low", "ci_high"]] = [0.7123, 0.61, 0.79]
    write_csv(path, table)
    figure = auroc_figure(read_results(folder), "synthetic films")
    found = texts(figure)
    labels = [label if label != "Lung Opacity" else "Lung Opacity*" for label in ordered(CHEXPERT)]
    assert set(labels) | {"Mean (CheXlocalize 10)", "Mean (14)", "0.712"} <= set(found)
    assert "* called Airspace Opacity in CheXlocalize" in found and "Test films: synthetic films" in found
    (axes,) = figure.axes
    interval, point, *_ = lines(axes, COLOURS["patch"])[0:2]
    assert list(interval.get_xdata()) == [0.61, 0.79] and list(point.get_xdata()) == [0.7123]
    assert axes.get_xlim()[0] <= 0.61 and axes.get_xlim()[1] == 1
    bold = {text.get_text() for text in axes.texts if text.get_weight() == "bold"}
    assert "0.712" not in bold and "Labels of CheXlocalize" in bold


def test_figure_1_says_undefined_and_works_with_one_model(folder):
    path = folder / "MedicalPatchNet" / "classification_test.csv"
    table = pd.read_csv(path)
    table.loc[(table["label"] == "Fracture") & (table["metric"] == "auroc"), ["value", "ci_low", "ci_high"]] = math.nan
    write_csv(path, table)
    (folder / "EfficientNetB0" / "classification_test.csv").unlink()
    figure = auroc_figure(read_results(folder))
    assert texts(figure).count("undefined") == 1 and texts(figure).count("–") == 1
    assert not lines(figure.axes[0], COLOURS["baseline"])


def test_roc_panels_show_curve_operating_point_and_auroc(folder):
    path = folder / "MedicalPatchNet" / "roc_test.csv"
    table = pd.read_csv(path)
    write_csv(path, table[table["label"] != "Fracture"])
    model = read_results(folder).patch
    figure = roc_figure(model, "patch")
    panels = dict(zip(ordered(CHEXPERT), figure.axes, strict=False))
    assert [panels[label].get_title() for label in ("Lung Opacity", "Enlarged Cardiomediastinum")] == [
        "Lung Opacity*", "Enlarged Card.",
    ]  # fmt: skip
    (curve,) = lines(panels["Edema"], COLOURS["patch"])
    expected = table[table["label"] == "Edema"]
    np.testing.assert_allclose(np.stack(curve.get_data()), expected[["fpr", "tpr"]].to_numpy().T, rtol=1e-8)
    (point,) = lines(panels["Edema"], "#000000")
    scores = model.scores
    assert point.get_xdata()[0] == pytest.approx(1 - scores.get("Edema", "specificity", "youden").value)
    assert point.get_ydata()[0] == scores.get("Edema", "sensitivity", "youden").value
    assert f"{scores.get('Edema', 'auroc', '-').value:.3f}" in panels["Edema"].texts[0].get_text()
    assert panels["Fracture"].texts[0].get_text() == "undefined" and not lines(panels["Fracture"], COLOURS["patch"])


def test_reliability_leaves_empty_bins_out(folder):
    model = read_results(folder).baseline
    figure = reliability_figure(model, "baseline", "synthetic films")
    panels = dict(zip(ordered(CHEXPERT), figure.axes, strict=False))
    bins = model.calibration[model.calibration["label"] == "Edema"]
    assert (bins["count"] == 0).any()  # else this test shows nothing
    dots = panels["Edema"].collections[-1].get_offsets()
    shown = bins[bins["count"] > 0]
    np.testing.assert_allclose(dots, shown[["mean_probability", "fraction_positive"]])


def test_wilson_interval_solves_its_equation():
    """Its ends are the proportions p from which the observed share lies exactly 1.96 standard errors away."""
    share, count = np.array([0.0, 0.3, 1.0]), np.array([1.0, 10.0, 50.0])
    low, high = wilson(share, count)
    for p in (low, high):
        inside = (p > 1e-12) & (p < 1 - 1e-12)
        away = np.abs(share - p)[inside] / np.sqrt(p * (1 - p) / count)[inside]
        np.testing.assert_allclose(away, norm.ppf(0.975), rtol=1e-6)
    assert low[0] == pytest.approx(0) and high[2] == pytest.approx(1)


def test_files_are_png_and_pdf_and_come_out_the_same_twice(tmp_path):
    before, paths = dict(matplotlib.rcParams), {}
    for folder in ("a", "b"):
        with style():
            figure = Figure(figsize=(2, 1))
            figure.subplots().set_title(r"a name with $\frac{two}$ dollars")  # not a formula, least of all a bad one
            paths[folder] = save(figure, tmp_path / folder, "line")
    assert [path.name for path in paths["a"]] == ["line.png", "line.pdf"]
    with Image.open(paths["a"][0]) as picture:
        assert picture.size == (400, 200)
    assert paths["a"][1].read_bytes().startswith(b"%PDF")
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(paths["a"], paths["b"], strict=True))
    assert dict(matplotlib.rcParams) == before
