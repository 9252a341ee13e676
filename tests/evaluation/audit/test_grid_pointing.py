import math

import pytest

from evaluation.audit.grid_pointing import draw_grids, pointing_shares

TRUTH = {f"film{i}": (1, 0, 0, -1)[i % 4] for i in range(16)}


def test_a_grid_is_a_film_with_the_finding_and_three_others_without():
    grids = draw_grids(TRUTH, "Edema", seed=0)
    assert [grid[0] for grid in grids] == sorted(film for film, value in TRUTH.items() if value == 1)
    for grid in grids:
        assert len(set(grid)) == 4 and all(TRUTH[film] == 0 for film in grid[1:])
    assert grids == draw_grids(dict(reversed(TRUTH.items())), "Edema", seed=0)
    assert grids != draw_grids(TRUTH, "Edema", seed=1) and grids != draw_grids(TRUTH, "Pneumonia", seed=0)


def test_too_few_films_without_the_finding_make_no_grid():
    assert draw_grids({"a": 1, "b": 0, "c": 0, "d": -1}, "Edema", seed=0) == []


def test_shares_of_the_positive_evidence():
    evidence = {"a": 3.0, "b": 1.0, "c": 0.0, "d": 2.0, "e": 0.0, "f": 0.0, "g": 0.0}
    shares = pointing_shares(evidence, [("a", "b", "c", "d"), ("e", "f", "g", "c")])
    assert shares["a"] == pytest.approx(3 / 6) and math.isnan(shares["e"])
