import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from cxr.heat_maps import HeatMap
from cxr.masks import GroundTruth, encode_mask
from evaluation.localization import score_maps
from evaluation.location_prior import (
    SIDE,
    LocationPrior,
    ShuffledMaps,
    area_shares,
    by_size,
    centre_maps,
    mean_interval,
    prior_maps,
)

VIEWS = {"a": "frontal", "b": "frontal", "c": "lateral", "d": "frontal", "e": "lateral"}
SIZE = {"a": (128, 256), "b": (256, 128), "c": (128, 128), "d": (384, 128), "e": (256, 256)}


def mask(film, seed, share=0.3):
    return np.random.default_rng(seed).random(SIZE[film]) < share


MASKS = {
    (film, task): mask(film, 7 * i + j) for i, film in enumerate("abc") for j, task in enumerate(["Edema", "Mass"])
}
MASKS["b", "Edema"] = np.zeros(SIZE["b"], bool)  # looked for, not there
del MASKS["a", "Mass"]  # not looked for


def truth_of(masks) -> GroundTruth:
    content: dict = {}
    for (film, task), plane in masks.items():
        content.setdefault(film, {})[task] = encode_mask(plane)
    return GroundTruth(content)


class Source:
    """Maps that are 1 in the pixel of their film's place in the alphabet."""

    entries = sorted((film, task) for film in VIEWS for task in ("Edema", "Mass"))

    def load(self, film, task):
        plane = np.zeros((4, 4), np.float32)
        plane.flat[ord(film) - ord("a")] = 1
        return HeatMap(film, task, plane, 0.25, 1, SIZE[film][::-1])


def brute_force_mean(masks) -> np.ndarray:
    """Mean over masks of the share of each of SIDE x SIDE cells that is inside; sides are multiples of SIDE."""
    planes = []
    for plane in masks:
        down, across = (side // SIDE for side in plane.shape)
        cells = [[plane[y * down : (y + 1) * down, x * across : (x + 1) * across].mean() for x in range(SIDE)]
                 for y in range(SIDE)]  # fmt: skip
        planes.append(cells)
    return np.mean(planes, axis=0)


def test_the_prior_is_the_mean_of_the_validation_masks_of_the_view():
    prior = LocationPrior.of(truth_of(MASKS), VIEWS)
    edema, mass = ({f: m for (f, task), m in MASKS.items() if task == name} for name in ("Edema", "Mass"))
    expected = {
        ("frontal", "Edema"): [edema["a"], edema["b"]],
        ("lateral", "Edema"): [edema["c"]],
        ("", "Edema"): list(edema.values()),
        ("oblique", "Mass"): list(mass.values()),
        ("frontal", "Mass"): [mass["b"]],
    }
    for (view, task), masks in expected.items():
        np.testing.assert_allclose(prior.plane(view, task), brute_force_mean(masks), rtol=0, atol=1e-6)
    assert prior.plane("frontal", "Fracture") is None


def test_a_view_without_the_task_takes_all_films():
    prior = LocationPrior.of(
        truth_of({("a", "Edema"): MASKS["a", "Edema"], ("c", "Edema"): np.zeros(SIZE["c"], bool)}), VIEWS
    )
    assert np.array_equal(prior.plane("lateral", "Edema"), prior.plane("", "Edema"))


def test_without_any_outline_there_is_no_prior():
    with pytest.raises(InputError, match="no outline in any film"):
        LocationPrior.of(truth_of({("a", "Edema"): np.zeros(SIZE["a"], bool)}), VIEWS)


def test_the_prior_hits_where_the_validation_masks_overlap():
    left, middle = np.zeros(SIZE["c"], bool), np.zeros(SIZE["c"], bool)
    left[40:60, 10:50], middle[40:60, 40:80] = True, True
    prior = LocationPrior.of(truth_of({("c", "Edema"): left, ("e", "Edema"): np.kron(middle, np.ones((2, 2)))}), VIEWS)
    inside, beside = np.zeros(SIZE["a"], bool), np.zeros(SIZE["b"], bool)
    inside[40:60, 80:100], beside[80:120, 10:38] = True, True  # the overlap is columns 40 to 50 of 128, rows 40 to 60
    test = truth_of({("a", "Edema"): inside, ("b", "Edema"): beside})
    hits = score_maps(prior_maps(prior, test, {}), test, masks=False).hits()
    assert hits["Edema"].to_dict() == {"a": 1, "b": 0}


def test_the_centre_hits_a_mask_there_only():
    around, beside = np.zeros((2, 128, 128), bool)
    around[60:68, 60:68], beside[:50] = True, True
    test = truth_of({("c", "Edema"): around, ("c", "Mass"): beside})
    hits = score_maps(centre_maps(test), test, masks=False).hits()
    assert hits.loc["c"].to_dict() == {"Edema": 1, "Mass": 0}


def test_shuffled_maps_are_those_of_another_positive_film_of_the_view():
    masks = {(film, "Edema"): mask(film, 1) for film in "abcd"} | {("e", "Edema"): np.zeros(SIZE["e"], bool)}
    test = truth_of(masks)
    donors = set()
    for seed in range(20):
        maps = ShuffledMaps(Source(), test, VIEWS, seed)
        assert maps.entries == [("a", "Edema"), ("b", "Edema"), ("d", "Edema")]  # c is alone in its view
        assert maps.donors == ShuffledMaps(Source(), test, VIEWS, seed).donors
        for film, task in maps.entries:
            shown = maps.load(film, task)
            assert shown.map.flat[ord(maps.donors[film, task]) - ord("a")] == 1
            assert shown.film_size == SIZE[film][::-1] and maps.donors[film, task] != film
        donors |= set(maps.donors.items())
    assert donors == {((a, "Edema"), b) for a in "abd" for b in "abd" if a != b}
    hits = score_maps(maps, test, masks=False).hits()
    assert "c" not in hits.index and hits["Edema"].notna().sum() == 3


def test_chance_and_sizes_are_counted_by_area():
    planes = np.zeros((4, 100, 100), bool)
    for plane, pixels in zip(planes, (99, 100, 300, 1001), strict=True):
        plane.flat[:pixels] = True
    test = truth_of({(str(i), "Edema"): plane for i, plane in enumerate(planes)})
    shares = area_shares(test)
    assert shares["Edema"].tolist() == [0.0099, 0.01, 0.03, 0.1001]
    hits = pd.DataFrame({"Edema": [1.0, 0.0, 1.0, np.nan]}, index=list("0123"))
    assert by_size(hits, shares).to_numpy().tolist() == [["<1%", 1, 1], ["1-3%", 0, 1], ["3-10%", 1, 1], [">10%", 0, 0]]


def test_intervals_of_patients_are_wider_than_of_films_that_agree_and_equal_for_one_film_each():
    films = pd.DataFrame({"Edema": np.repeat([1.0, 0.0, 1.0, 0.0, 1.0], 4), "Mass": np.nan})
    patients, single = np.repeat(np.arange(5), 4), np.arange(20)
    value, low, high = mean_interval(films, patients, resamples=2000, seed=0)
    assert value == 0.6 and low <= 0.2 and high == 1.0
    _, film_low, film_high = mean_interval(films, single, resamples=2000, seed=0)
    assert 0.3 < film_low < 0.45 and 0.75 < film_high < 0.9
    one_each = films.iloc[::4]
    assert mean_interval(one_each, np.arange(5), resamples=500, seed=3) == mean_interval(
        one_each, np.unique(list("vwxyz"), return_inverse=True)[1], resamples=500, seed=3
    )
