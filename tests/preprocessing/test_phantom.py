"""The synthetic cohort: who has what, and that every finding shows where its mask is."""

import numpy as np
import pytest

from cxr.labels import CHEXPERT
from preprocessing.phantom.canvas import Canvas, points
from preprocessing.phantom.cohort import (
    FINDINGS,
    FIRST_PATIENT,
    IMPLY_OPACITY,
    Film,
    draw_cohort,
    label_table,
    report_table,
    split_sizes,
    table_without_people,
    visual_table,
)
from preprocessing.phantom.film import render


@pytest.fixture(scope="module")
def cohort():
    return draw_cohort(400, seed=3)


def by_split(films, split):
    return [film for film in films if film.split == split]


def film_with(findings, lateral=False, patient=7):
    return Film("train", patient, 1, 1, 0, lateral, "" if lateral else "PA", "Male", 60, tuple(findings))


def test_split_sizes():
    assert split_sizes(20) == {"train": 14, "valid": 2, "test": 4}
    assert split_sizes(400) == {"train": 280, "valid": 40, "test": 80}
    assert split_sizes(2000) == {"train": 1700, "valid": 100, "test": 200}


def test_patient_numbers_of_a_large_cohort_do_not_run_into_each_other():
    sizes = split_sizes(60_000)
    assert sum(sizes.values()) == 60_000
    assert FIRST_PATIENT["train"] + sizes["train"] <= FIRST_PATIENT["valid"]
    assert FIRST_PATIENT["valid"] + sizes["valid"] <= FIRST_PATIENT["test"]


def test_patients_are_numbered_as_in_chexpert_and_never_shared(cohort):
    patients = {split: {film.patient for film in by_split(cohort, split)} for split in ("train", "valid", "test")}
    assert patients["train"] == set(range(1, 281))
    assert patients["valid"] == set(range(64541, 64581))
    assert patients["test"] == set(range(64741, 64821))


def test_paths_are_unique_and_in_chexperts_form(cohort):
    assert len({film.path for film in cohort}) == len(cohort)
    assert cohort[0].path == "train/patient00001/study1/view1_frontal.jpg"
    assert cohort[0].image_id == "patient00001_study1_view1_frontal"
    assert all(film.study == 1 for film in cohort if film.split != "train")
    views = [film.path.rsplit("_", 1)[1] for film in cohort]
    assert 0.1 < views.count("lateral.jpg") / len(views) < 0.3
    assert {film.projection for film in cohort if film.lateral} == {""}
    assert {film.projection for film in cohort if not film.lateral} == {"AP", "PA"}


@pytest.mark.parametrize("seed", range(5))
def test_prevalence_in_every_split(seed):
    films = draw_cohort(400, seed)
    for split in ("train", "valid", "test"):
        table = label_table(by_split(films, split), "")[list(CHEXPERT.names)].astype(float)
        positives = table.sum()
        assert (positives >= 3).all() and (len(table) - positives >= 3).all(), (split, positives)
        share = table.mean()
        assert share.min() > 0.05 and share.max() < 0.51, (split, share)
        assert share["Pleural Effusion"] > share["Consolidation"], split
        assert share["Support Devices"] > share["Fracture"], split


def test_hierarchy(cohort):
    for film in cohort:
        truth = film.truth()
        if any(truth[label] for label in IMPLY_OPACITY):
            assert truth["Lung Opacity"]
        ill = [label for label in FINDINGS if truth[label] and label != "Support Devices"]
        assert truth["No Finding"] == (not ill)


def test_sick_patients_have_several_findings_together(cohort):
    table = label_table(by_split(cohort, "train"), "")[list(FINDINGS)].astype(float)
    together = table.corr()
    assert together.loc["Edema", "Pleural Effusion"] > 0.1
    assert together.loc["Edema", "Cardiomegaly"] > 0.1


def test_a_patient_is_the_same_in_a_cohort_of_another_size(cohort):
    larger = {film.path: film for film in draw_cohort(500, seed=3)}
    assert all(larger[film.path] == film for film in cohort)
    assert draw_cohort(400, seed=4) != cohort


def test_tables_have_the_columns_of_the_releases(cohort):
    people = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"]
    films = cohort[:20]
    assert list(report_table(films, "CheXpert-v1.0/", 3).columns) == [*people, *CHEXPERT.names]
    assert list(label_table(films, "CheXpert-v1.0/").columns) == [*people, *CHEXPERT.names]
    assert list(visual_table(films, "CheXpert-v1.0/").columns) == [*people, *FINDINGS, "No Finding"]
    assert list(table_without_people(films).columns) == ["Path", *CHEXPERT.names]
    assert label_table(films, "CheXpert-v1.0/")["Path"][0] == f"CheXpert-v1.0/{films[0].path}"
    assert table_without_people(films)["Path"][0] == films[0].path


def test_reports_leave_blanks_and_doubts_but_seldom_lie(cohort):
    films = by_split(cohort, "train")
    reported = report_table(films, "", 3)[list(CHEXPERT.names)]
    truth = label_table(films, "")[list(CHEXPERT.names)]
    assert set(np.unique(reported)) == {"", "-1.0", "0.0", "1.0"}
    assert set(reported["No Finding"]) == {"", "1.0"}
    for label in FINDINGS:
        stated = reported[label].isin(["0.0", "1.0"])
        assert (reported[label][stated] == truth[label][stated]).all()
    assert 0.5 < (reported == "").to_numpy().mean() < 0.85
    assert 0.02 < (reported == "-1.0").to_numpy().mean() < 0.1
    assert (reported["Atelectasis"] == "-1.0").sum() > (reported["Support Devices"] == "-1.0").sum()
    for _, study in reported.groupby([film.patient * 10 + film.study for film in films]):
        assert (study == study.iloc[0]).all(axis=None)  # one report per study


def test_canvas_puts_the_patient_frame_onto_the_film():
    canvas = Canvas(60, 40, scale=10.0, centre=(20.0, 15.0), tilt=0.0)
    layer = canvas.fill(points((-0.5, -1), (1.5, -1), (1.5, 0.5), (-0.5, 0.5)), blur=0.0)
    expected = np.zeros((40, 60), np.float32)
    expected[5:21, 15:36] = 1  # x: 20 + 10 (-0.5..1.5), y: 15 + 10 (-1..0.5), both ends drawn
    np.testing.assert_array_equal(layer, expected)
    assert not canvas.fill(points((9, 9), (10, 9), (10, 10))).any()  # beside the film
    beyond = canvas.fill(points((-9, -9), (9, -9), (9, 9), (-9, 9)), blur=0.3)
    assert beyond.min() > 0.99  # a shape that leaves the film does not fade at its edge


def test_a_film_is_a_grey_rectangle_and_repeats():
    first, again = (render(film_with(["Edema"]), seed=1) for _ in range(2))
    assert first.image.dtype == np.uint8 and first.image.ndim == 2
    height, width = first.image.shape
    assert height != width and 640 <= max(height, width) <= 1100
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks["Edema"], again.masks["Edema"])
    other = render(film_with(["Edema"]), seed=2)
    assert other.image.shape != first.image.shape or (other.image != first.image).any()


def test_masks_are_those_of_the_findings_at_the_films_size():
    findings = ("Cardiomegaly", "Lung Opacity", "Pneumonia", "Pleural Effusion")
    drawn = render(film_with(findings), seed=1)
    assert tuple(drawn.masks) == findings
    for mask in drawn.masks.values():
        assert mask.shape == drawn.image.shape and mask.dtype == bool
    assert (drawn.masks["Lung Opacity"] >= drawn.masks["Pneumonia"]).all()
    assert not render(film_with(()), seed=1).masks


@pytest.fixture(scope="module")
def healthy():
    """The patient's frontal and lateral film without any finding, by `lateral`."""
    return {lateral: render(film_with((), lateral), 5).image.astype(float) for lateral in (False, True)}


@pytest.mark.parametrize("lateral", [False, True])
@pytest.mark.parametrize("label", FINDINGS)
def test_a_finding_shows_inside_its_mask(label, lateral, healthy):
    """The same film with and without the finding differs inside the mask far more than elsewhere."""
    ill = render(film_with((label,), lateral), 5)
    mask = ill.masks[label]
    assert 0.001 < mask.mean() < 0.5
    change = np.abs(ill.image - healthy[lateral])
    assert change[mask].mean() > 10
    assert change[mask].mean() > 4 * change[~mask].mean()
