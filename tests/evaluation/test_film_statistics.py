import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from evaluation.binomial import exact_interval
from evaluation.film_statistics import Resampling, mean_rows, of_films, paired_differences, write_results
from evaluation.localizing.control_tables import MethodCells, added_value_rows, size_rows
from evaluation.localizing.outlined_films import OutlinedFilms
from tests.evaluation.control_films import outlined_films

RNG = np.random.default_rng(0)
HITS = pd.DataFrame(RNG.integers(0, 2, (12, 2)).astype(float), columns=["Edema", "Mass"], index=list("abcdefghijkl"))
HITS.iloc[3:5, 0] = np.nan
PATIENTS = {film: f"p{'20113325478'[place % 11]}" for place, film in enumerate(HITS.index)}
FILMS = OutlinedFilms(outlined_films("a", 0).truth, "", {}, PATIENTS)


def drawn_rows(units, resamples, seed):
    """Rows of the films under each resample: units drawn one by one, each with all its films."""
    stream, count = np.random.default_rng(seed), len(set(units))
    members = [np.flatnonzero(units == unit) for unit in range(count)]
    for _ in range(resamples):
        yield np.concatenate([members[unit] for unit in stream.integers(0, count, count)])


@pytest.mark.parametrize("unit", ["film", "patient"])
def test_means_and_differences_against_loops(unit):
    resampling = FILMS.resampling(list(HITS.index), resamples=300, seed=4, unit=unit)
    names = list(dict.fromkeys(PATIENTS.values()))
    units = np.arange(12) if unit == "film" else np.array([names.index(PATIENTS[film]) for film in HITS.index])
    other = HITS.sample(frac=1, random_state=1).set_axis(HITS.index)
    drawn = list(drawn_rows(units, 300, 4))
    loop = pd.DataFrame([HITS.iloc[rows].mean() for rows in drawn])
    loop["Mean"] = loop.mean(axis=1)
    rows = pd.DataFrame(mean_rows(HITS, resampling, hits=True)).set_index("name")
    np.testing.assert_allclose(rows["value"], [*HITS.mean(), HITS.mean().mean()])
    np.testing.assert_allclose(rows["ci_low"], loop.quantile(0.025), atol=1e-12)
    np.testing.assert_allclose(rows["ci_high"], loop.quantile(0.975), atol=1e-12)
    assert rows["films"].tolist() == [10, 12, 22]
    loop = pd.DataFrame([HITS.iloc[rows].mean() - other.iloc[rows].mean() for rows in drawn])
    loop["Mean"] = loop.mean(axis=1)
    table = paired_differences(HITS, other, resampling).set_index("name")
    np.testing.assert_allclose(table["lower"], loop.quantile(0.025), atol=1e-12)
    np.testing.assert_allclose(table["upper"], loop.quantile(0.975), atol=1e-12)


def test_patients_with_one_film_each_are_the_films():
    names = ["z", "y", "patient10", "patient2", "patient1"]
    films = OutlinedFilms(FILMS.truth, "", {}, dict(zip("abcde", names, strict=True)))
    by_film, by_patient = (
        films.resampling(list("abcde"), resamples=200, seed=1, unit=unit) for unit in ("film", "patient")
    )
    table = HITS.iloc[:5]
    assert mean_rows(table, by_film, hits=False) == mean_rows(table, by_patient, hits=False)
    a, b = (paired_differences(table, 1 - table, draws) for draws in (by_film, by_patient))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_films_of_unknown_patients_cannot_be_drawn_by_patient():
    with pytest.raises(InputError, match="film_x: its patient is unknown; .* or resample by film"):
        FILMS.resampling(["a", "film_x"], resamples=5, seed=0, unit="patient")
    assert FILMS.resampling(["a", "patient7_study1_view1_frontal"], resamples=5, seed=0, unit="patient").units[1] == 1


def test_intervals_of_films_that_agree_within_patients_are_wider():
    films = pd.DataFrame({"Edema": np.repeat([1.0, 0.0, 1.0, 0.0, 1.0], 4)})
    by_patient, by_film = Resampling(np.repeat(np.arange(5), 4), 2000, 0), of_films(20, resamples=2000, seed=0)
    wide, narrow = (mean_rows(films, draws, hits=True)[0] for draws in (by_patient, by_film))
    assert wide["value"] == 0.6 and wide["ci_low"] <= 0.2 and wide["ci_high"] == 1.0
    assert 0.3 < narrow["ci_low"] < 0.45 and 0.75 < narrow["ci_high"] < 0.9


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_hits_that_all_agree_have_the_exact_interval_of_their_units(hit, tmp_path):
    table = pd.DataFrame({"Edema": [hit] * 16 + [np.nan] * 2, "Mass": [0.0, 1.0] * 9})
    draws = of_films(18, resamples=50, seed=0)
    row, other, mean = mean_rows(table, draws, hits=True)
    assert (row["ci_low"], row["ci_high"]) == exact_interval(16 * int(hit), 16)
    assert row["note"].startswith(f"exact (Clopper-Pearson) interval of {16 * int(hit)} of 16 films")
    assert other["note"] == mean["note"] == "" and (mean_rows(table, draws, hits=False)[0]["ci_low"]) == hit
    of_pairs = Resampling(np.arange(18) // 2, 50, 0, "patient")
    assert mean_rows(table, of_pairs, hits=True)[0]["note"].startswith(
        f"exact (Clopper-Pearson) interval of {8 * int(hit)} of 8 patients"
    )
    summary = write_results(tmp_path, "hitmiss", table, draws, exact=True).set_index("name")
    assert tuple(summary.loc["Edema", ["lower", "upper"]]) == exact_interval(16 * int(hit), 16)
    assert summary.loc["Edema", "note"] == row["note"] and summary.loc["Mass", "note"] == ""
    assert "note" not in write_results(tmp_path, "iou", table, draws)


def test_a_single_unit_has_no_interval():
    table = pd.DataFrame({"Edema": [0.25, np.nan], "Mass": [np.nan, np.nan]})
    edema, mass, mean = mean_rows(table, of_films(2, resamples=9, seed=0), hits=False)
    assert np.isnan(edema["ci_low"]) and edema["note"] == "no interval of a single film" and edema["value"] == 0.25
    assert mass["note"] == "no film to score" and np.isnan(mean["ci_high"]) and mean["note"] == "over 1 of 2 tasks"


def test_sizes_against_a_loop():
    shares = pd.DataFrame(
        {"Edema": [0.005, 0.01, 0.02, 0.03, 0.05, 0.099, 0.1, 0.2, np.nan, 0.5, 0.009, 0.04], "Mass": [0.0099] * 12},
        index=HITS.index,
    )
    table = size_rows({"hit_rate": HITS}, shares, lambda films: of_films(len(films), resamples=200, seed=2))
    edges = {"<1%": (0, 0.01), "1-3%": (0.01, 0.03), "3-10%": (0.03, 0.1), ">10%": (0.1, 1)}
    for (size, (low, high)), row in zip(edges.items(), table.to_dict(orient="records"), strict=True):
        inside = [
            (place, HITS.iloc[place, task])
            for place in range(12)
            for task in range(2)
            if low <= shares.iloc[place, task] < high and not np.isnan(HITS.iloc[place, task])
        ]
        assert row["size"] == size and row["films"] == len(inside)
        values = [value for _, value in inside]
        assert row["value"] == pytest.approx(np.mean(values))
        if len(set(values)) == 1:
            assert row["note"].startswith("exact")
            continue
        samples = []
        for drawn in drawn_rows(np.arange(12), 200, 2):
            of_drawn = [value for film in drawn for place, value in inside if place == film]
            samples.append(np.mean(of_drawn) if of_drawn else np.nan)
        assert row["ci_low"] == pytest.approx(np.nanquantile(samples, 0.025))
        assert row["ci_high"] == pytest.approx(np.nanquantile(samples, 0.975))


def test_added_value_compares_over_the_cells_that_both_define():
    def of(seed):
        table = pd.DataFrame(np.random.default_rng(seed).random((12, 2)), columns=HITS.columns, index=HITS.index)
        return table.mask(table < 0.2)

    none = {name: of(i) for i, name in enumerate(("prior_hit", "prior_iou"))}
    own = {"hit_rate": of(5), "iou": of(6)}
    names = ("with_prior_hit", "shuffled_hit", "shuffled_iou", "shuffled_with_prior_hit")
    controls = {name: of(7 + i) for i, name in enumerate(names)}
    draws = lambda films: of_films(len(films), resamples=20, seed=0)  # noqa: E731
    rows = added_value_rows(none, {"raw": MethodCells(own, controls, 0.5)}, draws).set_index(
        ["a", "b", "metric", "name"]
    )
    pairs = {
        ("map", "prior", "hit_rate"): (own["hit_rate"], none["prior_hit"]),
        ("map", "prior", "iou"): (own["iou"], none["prior_iou"]),
        ("map", "shuffled", "hit_rate"): (own["hit_rate"], controls["shuffled_hit"]),
        ("map", "shuffled", "iou"): (own["iou"], controls["shuffled_iou"]),
        ("with_prior", "prior", "hit_rate"): (controls["with_prior_hit"], none["prior_hit"]),
        ("with_prior", "shuffled_with_prior", "hit_rate"): (
            controls["with_prior_hit"],
            controls["shuffled_with_prior_hit"],
        ),
    }
    assert len(rows) == 3 * len(pairs) and (rows["floor"] == 0.5).all()
    for key, (a, b) in pairs.items():
        means = []
        for task in HITS.columns:
            cells = [(x, y) for x, y in zip(a[task], b[task], strict=True) if not np.isnan(x + y)]
            means.append(np.mean(cells, axis=0))
            assert rows.loc[(*key, task), "films"] == len(cells)
            assert rows.loc[(*key, task), "difference"] == pytest.approx(means[-1][0] - means[-1][1])
        assert rows.loc[(*key, "Mean"), ["value_a", "value_b"]].tolist() == pytest.approx(list(np.mean(means, axis=0)))
