"""Writes a results folder in the formats of DESIGN §5, small and from a seed, for the tests of `reporting`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from cxr.files import write_json
from cxr.labels import CHEXPERT
from cxr.tables import write_csv

MEANS = {"Mean (CheXlocalize 10)": CHEXPERT.groups["CheXlocalize"], "Mean (14)": CHEXPERT.names}
METHODS = {"MedicalPatchNet": ("scaled", "raw"), "EfficientNetB0": ("gradcam", "gradcam++", "eigencam")}
MODEL = {
    "MedicalPatchNet": {"backbone": "efficientnet_b0", "patch_size": 64, "image_size": 512},
    "EfficientNetB0": {"backbone": "efficientnet_b0", "patch_size": 512, "image_size": 512},
}
PROTOCOLS = ("corrected", "published")


def write_results(folder, *, films=300, without_positives=(), seed=0):
    """Both models, complete. Labels in `without_positives` have no positive film: their AUROC is undefined."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((films, len(CHEXPERT.names))) < np.linspace(0.05, 0.45, len(CHEXPERT.names))).astype(int)
    truth[:, [CHEXPERT.names.index(label) for label in without_positives]] = 0
    for name, separation in (("MedicalPatchNet", 1.8), ("EfficientNetB0", 2.0)):
        noise = rng.normal(size=truth.shape)
        write_model(folder / name, truth, 1 / (1 + np.exp(-(noise + separation * truth - separation))))
        for protocol in PROTOCOLS:
            for method in METHODS[name]:
                write_localization(folder / name / "localization" / protocol / method, rng, films)
    return folder


def write_model(folder, truth, probability):
    write_json(folder / "run.json", {"model": MODEL[folder.name]})
    paths = [f"CheXpert-v1.0/test/patient{64741 + film}/study1/view1_frontal.jpg" for film in range(len(truth))]
    predictions = {"Path": paths}
    predictions |= {f"prob {label}": probability[:, i] for i, label in enumerate(CHEXPERT.names)}
    predictions |= {f"label {label}": truth[:, i] for i, label in enumerate(CHEXPERT.names)}
    write_csv(folder / "predictions_test.csv", pd.DataFrame(predictions))
    write_csv(folder / "classification_test.csv", classification(truth, probability))
    write_csv(folder / "roc_test.csv", roc(truth, probability))
    write_csv(folder / "calibration_test.csv", calibration(truth, probability))


def classification(truth, probability):
    values = {}
    for i, label in enumerate(CHEXPERT.names):
        positive, called = truth[:, i] == 1, probability[:, i] >= 0.4
        defined = positive.any()
        values[label, "auroc", "-"] = roc_auc_score(positive, probability[:, i]) if defined else np.nan
        values[label, "accuracy", "youden"] = (positive == called).mean() if defined else np.nan
        values[label, "sensitivity", "youden"] = called[positive].mean() if defined else np.nan
        values[label, "specificity", "youden"] = (~called[~positive]).mean() if defined else np.nan
    keys = {(metric, rule) for _, metric, rule in values}
    for mean, labels in MEANS.items():
        for key in keys:
            values[mean, *key] = np.nanmean([values[label, *key] for label in labels])
    rows = [
        {"label": label, "metric": metric, "rule": rule, "threshold": 0.4, "value": value}
        | {"ci_low": np.clip(value - 0.04, 0, 1), "ci_high": np.clip(value + 0.03, 0, 1), "resamples": 1000}
        for (label, metric, rule), value in values.items()
    ]
    return pd.DataFrame(rows)


def roc(truth, probability):
    curves = []
    for i, label in enumerate(CHEXPERT.names):
        if truth[:, i].any():
            fpr, tpr, threshold = roc_curve(truth[:, i], probability[:, i])
            curves.append(pd.DataFrame({"label": label, "fpr": fpr, "tpr": tpr, "threshold": threshold}))
    return pd.concat(curves)


def calibration(truth, probability, bins=10):
    rows = []
    for i, label in enumerate(CHEXPERT.names):
        place = np.minimum((probability[:, i] * bins).astype(int), bins - 1)
        for k in range(bins):
            inside = place == k
            row = {"label": label, "bin_low": k / bins, "bin_high": (k + 1) / bins, "count": inside.sum()}
            row["mean_probability"] = probability[inside, i].mean() if inside.any() else np.nan
            row["fraction_positive"] = truth[inside, i].mean() if inside.any() else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def write_localization(folder, rng, films):
    hits = pd.DataFrame(
        rng.integers(0, 2, (films, len(CHEXPERT.task_names))), columns=list(CHEXPERT.task_names)
    ).astype(float)
    hits[np.tile((np.arange(films) % 3 != 0)[:, None], len(CHEXPERT.task_names))] = np.nan
    ious = pd.DataFrame(rng.random((films, len(CHEXPERT.task_names))) ** 3, columns=list(CHEXPERT.task_names))
    write_measure(folder, "hitmiss", hits)
    write_measure(folder, "iou", ious)
    write_measure(folder / "tp_fp_fn", "iou", ious / 2)


def write_measure(folder, prefix, films, replicates=20):
    """`films` (film x task, NaN where undefined) and CheXlocalize's three files made from it."""
    rng = np.random.default_rng(1)
    draws = [films.iloc[rng.integers(0, len(films), len(films))].mean() for _ in range(replicates)]
    bootstrap = pd.DataFrame(draws)
    samples = bootstrap.assign(Mean=bootstrap.mean(axis=1))
    summary = pd.DataFrame({"name": samples.columns, "lower": samples.quantile(0.025), "mean": samples.mean()})
    summary["upper"] = samples.quantile(0.975)
    ids = [f"patient{64741 + film}_study1_view1_frontal" for film in range(len(films))]
    write_csv(folder / f"{prefix}_results_per_cxr.csv", films.assign(img_id=ids))
    write_csv(folder / f"{prefix}_bootstrap_results_per_cxr.csv", bootstrap)
    write_csv(folder / f"{prefix}_summary_results.csv", summary)
