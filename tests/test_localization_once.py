"""How often evalLocalization.py makes each map and reads each film, over a whole run on evidence files."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cli
import evalLocalization
from cxr.files import write_json
from cxr.images import Crop
from cxr.masks import encode_mask
from evaluation.localizing.localization import score_maps_at
from evaluation.localizing.location_prior import LocationPrior, outlined
from evaluation.localizing.miou_curves import miou_curves_of_both
from evaluation.localizing.outlined_films import read_outlined_films
from evaluation.localizing.with_prior import FilmPriors, posterior_map, read_floor
from reporting.pictures import curves
from saliency.evidence import evidence_folders
from saliency.evidence.evidence_files import FilmLabels, write_evidence
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source
from saliency.film_maps import Evidence
from saliency.reference_films import make_reference

TASKS = ("Cardiomegaly", "Edema", "Pneumothorax")
UNTUNED = "Pneumothorax"
"""Outlined in test films alone: it has no prior."""
FILMS = {split: [f"patient{first + n}_study1_view1_frontal" for n in range(5)]
         for split, first in (("val", 100), ("test", 200))}  # fmt: skip
WIDTH, HEIGHT, SIZE = 40, 32, 16
KINDS = [("corrected", "raw"), ("corrected", "relative"), ("corrected", "scaled")]
KINDS += [("published", "raw"), ("published", "scaled")]


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    picture = Image.new("L", (9, 9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw_miou_curves", lambda folder: picture.save(folder / "miou_curve.png"))
        yield


def write_study(root, tasks=TASKS):
    """Evidence of five films per split; the last film has no ground truth."""
    rng, results = np.random.default_rng(0), root / "results/patch"
    for split, films in FILMS.items():
        masks = {}
        for film in films:
            masks[film] = {}
            for task in TASKS:
                mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
                if rng.random() < 0.8 and not (task == UNTUNED and split == "val"):
                    y, x = rng.integers(0, 20, 2)
                    mask[y : y + 12, x : x + 15] = True
                masks[film][task] = encode_mask(mask)
            grid = torch.from_numpy(5 * rng.normal(size=(len(tasks), 8, 8)).astype(np.float32))
            evidence = Evidence(Crop.centred(WIDTH, HEIGHT), 4, 2, SIZE, grid, {})
            labels = FilmLabels(film, tasks, [0.5] * len(tasks), [1] * len(tasks), "frontal")
            write_evidence(results / f"evidence/{split}/{film}.npz", evidence, labels, torch.rand(16, 20))
        del masks[films[-1]]
        write_json(root / f"data/CheXlocalize/gt_segmentations_{split}.json", masks)
    make_reference(results, validation=FILMS["val"])


def localize(study):
    command = [study / "results/patch", "--chexlocalize", study / "data", "--resamples", 20, "--workers", 1]
    return cli.guarded(evalLocalization.main, [str(argument) for argument in command])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run, and how often it made each map and read each film."""
    made, read = Counter(), Counter()
    load, read_planes = EvidenceFolder.load, evidence_folders.read_planes

    def counted_load(source, film, task):
        made[source.folder.name, film, task, source.protocol, source.method] += 1
        return load(source, film, task)

    def counted_read(path, names, kind):
        read[path.parent.name, path.stem] += 1
        return read_planes(path, names, kind)

    study = tmp_path_factory.mktemp("study")
    write_study(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvidenceFolder, "load", counted_load)
        patch.setattr(evidence_folders, "read_planes", counted_read)
        assert localize(study) == 0
    return study, made, read


def test_each_map_is_made_once_and_each_film_read_once_for_it(run):
    """For tuning, scoring, both countings, controls and the posterior together.

    Only the relative maps of outlined validation films are made twice: the floor of the prior, by which all maps are
    multiplied, is chosen from all of them first, and keeping them would take memory that grows with the films.
    Validation films without ground truth count nowhere, and their maps are not made at all.
    """
    study, made, read = run
    truth = read_outlined_films(study / "data", "val").truth
    expected_made, expected_read = Counter(), Counter()
    for split, films in FILMS.items():
        for film in films:
            counts = split == "test" or film in truth
            for protocol, method in KINDS:
                twice = {task for task in TASKS if method == "relative" and split == "val" and truth.area(film, task)}
                expected_read[split, film] += counts + bool(twice)
                for task in TASKS:
                    expected_made[split, film, task, protocol, method] += counts + (task in twice)
    assert made == +expected_made and read == +expected_read
    assert max(made.values()) == 2 and sum(count == 2 for count in made.values()) == len(outlined(truth)) > 3


class Products:
    """Relative maps times the prior, one map made for each question."""

    def __init__(self, study, split, floor):
        films = {split: read_outlined_films(study / "data", split) for split in FILMS}
        self.source = heat_map_source(study / "results/patch", "corrected", split, "relative", TASKS)
        self.entries = [entry for entry in self.source.entries if entry[1] != UNTUNED]
        self.truth = films[split].truth
        self.given = {"priors": FilmPriors(LocationPrior.of(films["val"]), films[split]), "floor": floor}

    def load(self, film, task):
        return posterior_map(self.source.load(film, task), **self.given)


def test_the_posterior_is_that_of_passes_of_its_own(run):
    study, *_ = run
    folder = study / "results/patch/localization/corrected"
    validation, test = (Products(study, split, read_floor(folder / "relative/prior_floor.csv")) for split in FILMS)
    places = {True: folder / "posterior", False: folder / "posterior/tp_fp_fn"}
    found = {}
    for (true_pos_only, place), expected in zip(
        places.items(), miou_curves_of_both(validation, validation.truth), strict=True
    ):
        curve = pd.read_csv(place / "miou_curve.csv")
        for task in TASKS:
            values = expected[task][(curve["threshold"] * 65536).astype(int)]
            np.testing.assert_allclose(curve[task], values, rtol=1e-8)
        tuned = pd.read_csv(place / "tuning_results.csv")
        found[true_pos_only] = dict(zip(tuned["task"], tuned["threshold"], strict=True))
    scored = score_maps_at(test, test.truth, thresholds=list(found.values()))
    for (true_pos_only, place), scores in zip(places.items(), scored, strict=True):
        table = pd.read_csv(place / "iou_results_per_cxr.csv").set_index("img_id")
        expected = scores.iou(true_pos_only=true_pos_only)
        assert list(table.index) == list(expected.index) and table["Edema"].notna().any()
        np.testing.assert_allclose(table[list(TASKS)], expected[list(TASKS)], rtol=1e-8)
    hits = pd.read_csv(folder / "posterior/hitmiss_results_per_cxr.csv").set_index("img_id")
    np.testing.assert_array_equal(hits[list(TASKS)], scored[0].hits()[list(TASKS)])
    assert hits[UNTUNED].isna().all() and hits["Edema"].notna().any()


def test_one_of_both_missing_makes_both_again_with_the_same_bytes(run, capsys):
    study, *_ = run
    files = sorted(path for path in study.rglob("localization/**/*.csv"))
    before = {path: path.read_bytes() for path in files}
    capsys.readouterr()
    for missing in ("posterior/by_size.csv", "relative/by_size.csv"):
        (study / "results/patch/localization/corrected" / missing).unlink()
        assert localize(study) == 0
        said = capsys.readouterr().out
        assert "corrected/relative: tuning" in said and "corrected/posterior: tuning" in said
        assert said.count(": tuning") == 2 and {path: path.read_bytes() for path in files} == before
    assert localize(study) == 0
    said = capsys.readouterr().out
    assert ": tuning" not in said and "corrected/posterior: complete" in said


def test_maps_of_a_task_without_prior_alone_have_no_posterior(tmp_path):
    """Evidence of one task, which is outlined in test films alone, beside validation outlines of others."""
    write_study(tmp_path, [UNTUNED])
    assert localize(tmp_path) == 0
    folder = tmp_path / "results/patch/localization/corrected"
    assert pd.read_csv(folder / "relative/hitmiss_results_per_cxr.csv")[UNTUNED].notna().any()
    assert not (folder / "posterior").exists()
