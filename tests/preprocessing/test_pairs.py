"""Films that differ in one finding: the tables, and that nothing else differs."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
from cxr.labels import CHEXPERT
from cxr.manifests.films import read_films
from cxr.masks import read_ground_truth
from preprocessing import makeDemoDataset
from preprocessing.phantom import release
from preprocessing.phantom.cohort import FINDINGS, draw_cohort
from preprocessing.phantom.pairs import draw_pairs, film_table, pair_table


def test_a_pair_differs_in_its_finding_alone():
    pairs = draw_pairs(draw_cohort(60, seed=3), 4, seed=3)
    assert [label for label in FINDINGS for _ in range(4)] == [pair.label for pair in pairs]
    for pair in pairs:
        present, absent = set(pair.present.findings), set(pair.absent.findings)
        assert present - absent == {pair.label} and absent <= present
        assert pair.present.truth()[pair.label] and not pair.absent.truth()[pair.label]
        assert pair.present.split == "test" and not pair.present.lateral
        same = [(f.patient, f.study, f.view, f.index, f.projection, f.sex, f.age) for f in pair.films.values()]
        assert same[0] == same[1]
    ids = [film_id for pair in pairs for film_id in pair.films]
    assert len(set(ids)) == 2 * len(pairs) == len(film_table(pairs))


def test_findings_that_would_spoil_a_pair_are_not_on_its_films():
    pairs = draw_pairs(draw_cohort(120, seed=0), 10, seed=0)
    opacities = {"Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"}
    assert not any(opacities & set(pair.present.findings) for pair in pairs if pair.label == "Lung Opacity")
    wide = [pair for pair in pairs if pair.label == "Enlarged Cardiomediastinum"]
    assert wide and not any("Cardiomegaly" in pair.present.findings for pair in wide)


def test_pairs_are_drawn_by_seed_and_finding():
    films = draw_cohort(60, seed=1)
    few, many = draw_pairs(films, 2, seed=1), draw_pairs(films, 5, seed=1)
    assert [pair for pair in many if pair in few] == few
    assert draw_pairs(films, 2, seed=2) != few
    assert draw_pairs(films, 1, seed=1)[0].present.patient != draw_pairs(films, 1, seed=1)[7].present.patient


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Pairs of one finding, as a whole run writes those of all."""
    folder = tmp_path_factory.mktemp("pairs")
    films = draw_cohort(20, seed=0)
    pairs = [pair for pair in draw_pairs(films, 2, seed=0) if pair.label in ("Pleural Effusion", "Lung Opacity")]
    release.write_pairs(folder, pairs, 0, 1)
    return folder


def films_of(folder, row) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.asarray(Image.open(folder / f"films/{row[kind]}.jpg")).astype(int) for kind in ("with", "without"))


def test_the_folder_is_a_manifest_with_a_table_of_pairs(output):
    table = pd.read_csv(output / "pairs.csv")
    assert list(table.columns) == ["with", "without", "label", "mask"] and len(table) == 4
    films = read_films(output / "films.csv", output, split="test", label_set=CHEXPERT)
    assert set(films.ids) == set(table["with"]) | set(table["without"]) and set(films.views) <= {"PA", "AP"}
    truth = read_ground_truth(output / "regions.json")
    for row in table.to_dict("records"):
        assert CHEXPERT.label_of(row["mask"]) == row["label"] and truth.area(row["with"], row["mask"]) > 0
        column = CHEXPERT.index(row["label"])
        assert films.labels[films.ids.index(row["with"]), column] == 1
        assert films.labels[films.ids.index(row["without"]), column] == 0


def test_the_films_of_a_pair_differ_in_the_mask_and_hardly_elsewhere(output):
    truth = read_ground_truth(output / "regions.json")
    for row in pd.read_csv(output / "pairs.csv").to_dict("records"):
        present, absent = films_of(output, row)
        mask = truth.mask(row["with"], row["mask"])
        change = np.abs(present - absent)
        assert present.shape == absent.shape == mask.shape
        assert change[mask].mean() > 10 * change[~mask].mean() and change[mask].mean() > 3


def test_a_film_that_has_the_finding_in_the_cohort_is_the_cohorts_own(output):
    """The finding is drawn as in the data set: same random numbers, same pixels."""
    films = draw_cohort(20, seed=0)
    own = {film.image_id: film for film in films}
    pairs = draw_pairs(films, 2, seed=0)
    drawn = [pair for pair in pairs if pair.label in ("Pleural Effusion", "Lung Opacity")]
    kinds = ("present", "absent")
    same = [(p, kind) for p in drawn for kind in kinds if getattr(p, kind) == own[p.present.image_id]]
    assert same
    pair, kind = same[0]
    release.write_film(output / "cohort", 0, own[pair.present.image_id])
    drawn = output / "cohort/CheXlocalize/CheXpert" / own[pair.present.image_id].path
    film_id = list(pair.films)[kind == "absent"]
    assert (output / f"films/{film_id}.jpg").read_bytes() == drawn.read_bytes()


def test_what_is_complete_stays_and_what_is_missing_is_made_again(output):
    films = draw_cohort(20, seed=0)
    pairs = [pair for pair in draw_pairs(films, 2, seed=0) if pair.label in ("Pleural Effusion", "Lung Opacity")]
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in before}
    release.write_pairs(output, pairs, 0, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == times
    next(iter(sorted(output.glob("films/*.jpg")))).unlink()
    release.write_pairs(output, pairs, 0, 1)
    assert {path: path.read_bytes() for path in before} == before
    release.write_pairs(output, pairs[:1], 0, 1)
    assert len(json.loads((output / "regions.json").read_text())) == 1 == len(pd.read_csv(output / "pairs.csv"))


def test_the_table_names_the_mask_by_its_task():
    pair = next(pair for pair in draw_pairs(draw_cohort(20, seed=0), 1, seed=0) if pair.label == "Lung Opacity")
    assert pair_table([pair])["mask"].tolist() == [CHEXPERT.task_of("Lung Opacity")]


@pytest.mark.parametrize("count", ["0", "-1", "2.5", "many"])
def test_a_count_that_is_no_number_is_refused(tmp_path, count, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.guarded(makeDemoDataset.main, ["--output", str(tmp_path), "--pairs", count])
    assert stopped.value.code == 2 and "--pairs" in capsys.readouterr().err and not any(tmp_path.iterdir())
