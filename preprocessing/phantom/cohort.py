"""A synthetic cohort in CheXpert's formats: who is filmed, how often, and with which findings. Draws no pixel.

Every draw comes from a generator that is seeded by the cohort's seed and by the names of what is drawn, so that a
patient's films and labels stay the same whatever the size of the cohort and the number of workers.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from cxr.labels import CHEXPERT

FINDINGS: tuple[str, ...] = CHEXPERT.names[1:]
"""The 13 labels that show something; No Finding is their absence."""

FIRST_PATIENT = {"train": 1, "valid": 64541, "test": 64741}
"""Patient numbers start as in CheXpert and CheXlocalize, so that splits never share a patient."""

BLOCK = 40
"""Findings are dealt out among the studies of so many consecutive patients: prevalence varies little between splits."""

PREVALENCE = {
    "Enlarged Cardiomediastinum": 0.20,
    "Cardiomegaly": 0.18,
    "Lung Opacity": 0.40,
    "Lung Lesion": 0.09,
    "Edema": 0.14,
    "Consolidation": 0.11,
    "Pneumonia": 0.09,
    "Atelectasis": 0.15,
    "Pneumothorax": 0.13,
    "Pleural Effusion": 0.30,
    "Pleural Other": 0.09,
    "Fracture": 0.09,
    "Support Devices": 0.42,
}
"""Share of a block's studies that have a finding. Of Lung Opacity, those that other findings imply are part."""

IMPLY_OPACITY = ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis")
"""CheXpert's hierarchy: these are kinds of Lung Opacity."""

# How strongly each finding goes with general illness (congestion, intensive care): the shared factor of the draws.
_ILLNESS = dict.fromkeys(FINDINGS, 0.35) | {
    "Edema": 0.7,
    "Pleural Effusion": 0.65,
    "Cardiomegaly": 0.6,
    "Support Devices": 0.6,
    "Enlarged Cardiomediastinum": 0.5,
    "Lung Opacity": 0.6,
    "Atelectasis": 0.6,
    "Consolidation": 0.6,
    "Pneumonia": 0.5,
    "Lung Lesion": 0.2,
    "Fracture": 0.2,
}

# What CheXpert's report labeller makes of the truth: (uncertain, blank) of the positive, (uncertain, explicit
# negative) of the negative films. The rest is 1.0, and blank.
_REPORTED = dict.fromkeys(FINDINGS, (0.08, 0.10, 0.02, 0.10)) | {
    "Enlarged Cardiomediastinum": (0.20, 0.30, 0.05, 0.15),
    "Cardiomegaly": (0.12, 0.15, 0.03, 0.10),
    "Edema": (0.18, 0.08, 0.04, 0.15),
    "Consolidation": (0.35, 0.15, 0.06, 0.20),
    "Pneumonia": (0.45, 0.15, 0.05, 0.06),
    "Atelectasis": (0.40, 0.08, 0.05, 0.02),
    "Pneumothorax": (0.10, 0.05, 0.01, 0.30),
    "Pleural Effusion": (0.10, 0.05, 0.03, 0.25),
    "Support Devices": (0.01, 0.05, 0.00, 0.06),
}


@dataclass(frozen=True)
class Film:
    """One radiograph that is to be drawn. `findings` are those of its study, `index` counts the patient's films."""

    split: str
    patient: int
    study: int
    view: int
    index: int
    lateral: bool
    projection: str
    sex: str
    age: int
    findings: tuple[str, ...]

    @property
    def path(self) -> str:
        """As in CheXpert's tables, without the release's name: `train/patient00001/study1/view1_frontal.jpg`."""
        view = "lateral" if self.lateral else "frontal"
        return f"{self.split}/patient{self.patient:05d}/study{self.study}/view{self.view}_{view}.jpg"

    @property
    def image_id(self) -> str:
        """As in CheXlocalize's files: `patient64541_study1_view1_frontal`."""
        return "_".join(self.path.removesuffix(".jpg").split("/")[1:])

    def truth(self) -> dict[str, bool]:
        """All 14 labels. No Finding: nothing but, at most, support devices."""
        found = {label: label in self.findings for label in FINDINGS}
        nothing = not any(present for label, present in found.items() if label != "Support Devices")
        return {"No Finding": nothing} | found


def stream(seed: int, patient: int, *names: str | int) -> np.random.Generator:
    """The generator of one named draw about one patient; independent of every other draw."""
    return np.random.default_rng([seed, patient, zlib.crc32("/".join(map(str, names)).encode())])


def split_sizes(patients: int) -> dict[str, int]:
    """Patients per split: 85/5/10 %, with 40 in valid and 80 in test from 400 on, and 10 % and 20 % below that.

    Valid ends at 200 patients, as in CheXpert: the next number is the first of test.
    """
    room = FIRST_PATIENT["test"] - FIRST_PATIENT["valid"]
    valid = min(room, max(round(0.05 * patients), min(40, round(0.1 * patients))))
    test = max(round(0.10 * patients), min(80, round(0.2 * patients)))
    return {"train": patients - valid - test, "valid": valid, "test": test}


def draw_cohort(patients: int, seed: int) -> list[Film]:
    """All films of a cohort, split by split, in the order of their tables."""
    sizes = split_sizes(patients)
    numbers = [(split, FIRST_PATIENT[split] + i) for split, size in sizes.items() for i in range(size)]
    return [film for split, patient in numbers for film in _patient_films(split, patient, seed)]


def _patient_films(split: str, patient: int, seed: int) -> list[Film]:
    draw = stream(seed, patient, "person")
    sex = "Female" if draw.random() < 0.42 else "Male"
    age = int(np.clip(draw.normal(61, 17), 18, 90))
    first = FIRST_PATIENT[split]
    findings = _block_findings(split, first + (patient - first) // BLOCK * BLOCK, seed)
    films: list[Film] = []
    for study in range(1, _study_count(split, patient, seed) + 1):
        present = findings[patient, study]
        for view, lateral in enumerate(_views(draw), start=1):
            bedside = draw.random() < (0.8 if "Support Devices" in present else 0.4)
            projection = "" if lateral else ("AP" if bedside else "PA")
            films.append(Film(split, patient, study, view, len(films), lateral, projection, sex, age, present))
    return films


def _study_count(split: str, patient: int, seed: int) -> int:
    """Valid and test patients have one study each, as in CheXpert."""
    return 1 if split != "train" else int(stream(seed, patient, "studies").choice((1, 2, 3), p=(0.55, 0.30, 0.15)))


def _views(draw: np.random.Generator) -> tuple[bool, ...]:
    """For each film of a study, whether it is a lateral."""
    kinds: tuple[tuple[bool, ...], ...] = ((False,), (False, True), (False, False))
    return kinds[draw.choice(3, p=(0.70, 0.24, 0.06))]


@lru_cache(maxsize=8)
def _block_findings(split: str, first: int, seed: int) -> dict[tuple[int, int], tuple[str, ...]]:
    """Findings of every (patient, study) of the block of patients that starts at number `first`.

    Each finding has a latent severity per study (general illness, the patient's own share, chance); the studies that
    rank highest in it have the finding, as many as its prevalence asks for.
    """
    patients = range(first, first + BLOCK)
    studies = [(p, s) for p in patients for s in range(1, _study_count(split, p, seed) + 1)]
    severity = np.stack([_severity(p, s, seed) for p, s in studies])  # (studies, 13)
    present = {label: _highest(severity[:, i], PREVALENCE[label]) for i, label in enumerate(FINDINGS)}
    implied = np.any([present[label] for label in IMPLY_OPACITY], axis=0)
    opacity = np.where(implied, np.inf, severity[:, FINDINGS.index("Lung Opacity")])
    present["Lung Opacity"] = implied | _highest(opacity, PREVALENCE["Lung Opacity"])
    return {study: tuple(k for k in FINDINGS if present[k][i]) for i, study in enumerate(studies)}


def _highest(severity: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: the given share of the studies, those with the highest severity."""
    rank = np.argsort(np.argsort(-severity, kind="stable"), kind="stable")
    return rank < round(share * len(severity))


def _severity(patient: int, study: int, seed: int) -> np.ndarray:
    """(13,) standard normal severities of one study."""
    whole = stream(seed, patient, "illness")
    illness, own = whole.normal(), whole.normal(size=len(FINDINGS))
    chance = stream(seed, patient, "illness", study).normal(size=len(FINDINGS))
    weight = np.array([_ILLNESS[label] for label in FINDINGS])
    return weight * illness + np.sqrt(1 - weight**2) * (0.6 * own + 0.8 * chance)


def label_table(films: Sequence[Film], prefix: str) -> pd.DataFrame:
    """`valid.csv`, `val_labels.csv`: every label 1.0 or 0.0. `prefix` stands before each path."""
    rows = [_row(film, prefix) | {k: _value(v) for k, v in film.truth().items()} for film in films]
    return pd.DataFrame(rows)


def visual_table(films: Sequence[Film], prefix: str) -> pd.DataFrame:
    """`train_visualCheXbert.csv`: as `label_table`, No Finding in the last column."""
    table = label_table(films, prefix)
    return table[[name for name in table.columns if name != "No Finding"] + ["No Finding"]]


def table_without_people(films: Sequence[Film]) -> pd.DataFrame:
    """CheXlocalize's `test_labels.csv`: path and labels, no demographics."""
    return label_table(films, "")[["Path", *CHEXPERT.names]]


def report_table(films: Sequence[Film], prefix: str, seed: int) -> pd.DataFrame:
    """`train.csv`: labels as a labeller reads them out of reports, with uncertain (-1.0) and blank ones."""
    return pd.DataFrame([_row(film, prefix) | _reported(film, seed) for film in films])


def _row(film: Film, prefix: str) -> dict[str, str]:
    return {
        "Path": prefix + film.path,
        "Sex": film.sex,
        "Age": str(film.age),
        "Frontal/Lateral": "Lateral" if film.lateral else "Frontal",
        "AP/PA": film.projection,
    }


def _value(present: bool) -> str:
    return "1.0" if present else "0.0"


def _reported(film: Film, seed: int) -> dict[str, str]:
    """One report per study, so every film of a study has the same values. No Finding is 1.0 or blank, never 0.0."""
    draw = stream(seed, film.patient, "report", film.study)
    truth = film.truth()
    values = {"No Finding": "1.0" if truth["No Finding"] else ""}
    for label in FINDINGS:
        unsure, blank, unsure_negative, negative = _REPORTED[label]
        chance = draw.random()
        if truth[label]:
            values[label] = "-1.0" if chance < unsure else "" if chance < unsure + blank else "1.0"
        else:
            doubt = 0.0 if truth["No Finding"] else unsure_negative
            values[label] = "-1.0" if chance < doubt else "0.0" if chance < doubt + negative else ""
    return values
