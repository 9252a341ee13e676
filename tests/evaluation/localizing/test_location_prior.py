import numpy as np

from cxr.masks import GroundTruth, encode_mask
from evaluation.localizing.localization import score_maps
from evaluation.localizing.location_prior import (
    SIDE,
    LocationPrior,
    area_shares,
    centre_maps,
    prior_maps,
    shuffled_donors,
)
from evaluation.localizing.outlined_films import OutlinedFilms

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


def films_of(masks, views=VIEWS, patients=None) -> OutlinedFilms:
    return OutlinedFilms(truth_of(masks), "", views, patients or {})


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
    prior = LocationPrior.of(films_of(MASKS))
    edema, mass = ({f: m for (f, task), m in MASKS.items() if task == name} for name in ("Edema", "Mass"))
    expected = {
        ("frontal", "Edema"): [edema["a"], edema["b"]],
        ("lateral", "Edema"): [edema["c"]],
        ("", "Edema"): list(edema.values()),
        ("oblique", "Mass"): list(mass.values()),
        ("frontal", "Mass"): [mass["b"]],
    }
    for (view, task), masks in expected.items():
        np.testing.assert_allclose(prior.plane("test film", view, task), brute_force_mean(masks), rtol=0, atol=1e-6)
    assert prior.plane("test film", "frontal", "Fracture") is None


def test_a_validation_film_is_left_out_of_its_own_prior_with_its_patient_s_other_films():
    views = dict.fromkeys("abcde", "frontal")
    masks = {(film, "Edema"): mask(film, i) for i, film in enumerate("abcde")}
    alone = LocationPrior.of(films_of(masks, views))
    together = LocationPrior.of(films_of(masks, views, {"a": "one", "b": "two", "c": "one", "d": "three"}))
    cases = ((alone, "a", "bcde"), (together, "a", "bde"), (together, "b", "acde"))
    for prior, film, left in cases:
        expected = brute_force_mean([masks[other, "Edema"] for other in left])
        np.testing.assert_allclose(prior.plane(film, "frontal", "Edema"), expected, rtol=0, atol=1e-6)
    lonely = LocationPrior.of(films_of({("a", "Edema"): masks["a", "Edema"]}))
    assert lonely.plane("a", "frontal", "Edema") is None and lonely.plane("z", "frontal", "Edema") is not None


def test_a_view_without_the_task_takes_all_films():
    prior = LocationPrior.of(films_of({("a", "Edema"): MASKS["a", "Edema"], ("c", "Edema"): np.zeros(SIZE["c"], bool)}))
    assert np.array_equal(prior.plane("z", "lateral", "Edema"), prior.plane("z", "", "Edema"))


def test_without_any_outline_there_is_no_prior():
    nothing = films_of({("a", "Edema"): np.zeros(SIZE["a"], bool)})
    prior = LocationPrior.of(nothing)
    assert prior.plane("z", "frontal", "Edema") is None
    assert prior_maps(prior, films_of(MASKS)).entries == []


def test_the_prior_hits_where_the_validation_masks_overlap():
    left, middle = np.zeros(SIZE["c"], bool), np.zeros(SIZE["c"], bool)
    left[40:60, 10:50], middle[40:60, 40:80] = True, True
    masks = {("c", "Edema"): left, ("e", "Edema"): np.kron(middle, np.ones((2, 2)))}
    inside, beside = np.zeros(SIZE["a"], bool), np.zeros(SIZE["b"], bool)
    inside[40:60, 80:100], beside[80:120, 10:38] = True, True  # the overlap is columns 40 to 50 of 128, rows 40 to 60
    test = films_of({("a", "Edema"): inside, ("b", "Edema"): beside}, {})
    hits = score_maps(prior_maps(LocationPrior.of(films_of(masks)), test), test.truth, masks=False).hits()
    assert hits["Edema"].to_dict() == {"a": 1, "b": 0}


def test_the_centre_hits_a_mask_there_only():
    around, beside = np.zeros((2, 128, 128), bool)
    around[60:68, 60:68], beside[:50] = True, True
    test = films_of({("c", "Edema"): around, ("c", "Mass"): beside})
    hits = score_maps(centre_maps(test), test.truth, masks=False).hits()
    assert hits.loc["c"].to_dict() == {"Edema": 1, "Mass": 0}


def test_another_film_s_map_is_that_of_another_patient_s_positive_film_of_the_view():
    masks = {(film, "Edema"): mask(film, 1) for film in "abcd"} | {("e", "Edema"): np.zeros(SIZE["e"], bool)}
    with_maps = [(film, task) for film in "abcde" for task in ("Edema", "Mass")]
    found = set()
    for seed in range(20):
        donors = shuffled_donors(with_maps, films_of(masks), seed)
        assert donors == shuffled_donors(with_maps[::-1], films_of(masks), seed)
        assert list(donors) == [("a", "Edema"), ("b", "Edema"), ("d", "Edema")]  # c is alone in its view
        found |= set(donors.items())
    assert found == {((a, "Edema"), b) for a in "abd" for b in "abd" if a != b}
    of_two = films_of(masks, VIEWS, {"a": "one", "b": "one", "d": "two"})
    assert {donors[film, "Edema"] for film in "ab" for donors in [shuffled_donors(with_maps, of_two, 0)]} == {"d"}
    assert ("a", "Edema") not in shuffled_donors([("a", "Edema"), ("b", "Edema")], of_two, 0)


def test_chance_is_the_share_of_the_film_that_the_mask_covers():
    planes = np.zeros((3, 100, 100), bool)
    for plane, pixels in zip(planes, (99, 300, 0), strict=True):
        plane.flat[:pixels] = True
    shares = area_shares(truth_of({(str(i), "Edema"): plane for i, plane in enumerate(planes)}))
    np.testing.assert_array_equal(shares["Edema"], [0.0099, 0.03, np.nan])
