"""What the case viewer gets of a film, decoded again and compared with the maps and masks it was made from."""

import base64
import io
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import makeReport
from cxr.files import InputError, write_json
from cxr.heat_maps import HeatMapFolder, heat_map_name, write_heat_map
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from cxr.paths import film_id
from cxr.predictions import read_predictions
from reporting.outlines import outline_name
from reporting.page.case_list import CaseList, read_case_list
from reporting.page.case_pictures import ACROSS, LEVELS, MAP_SIDE, MapSources, by_priority, film_pictures, larger_film
from reporting.page.case_viewer import shown_films
from reporting.page.film_sizes import STEPS
from reporting.reading import read_results
from saliency.evidence.page_film import encoded_film
from tests.reporting.case_files import film_of, write_case_files
from tests.reporting.result_files import write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_results(tmp_path_factory.mktemp("cases") / "results", films=12)
    write_case_files(folder)
    return folder


@pytest.fixture(scope="module")
def sources(folder):
    return makeReport.map_sources(read_results(folder), folder, folder / "gt_segmentations_test.json")


@pytest.fixture(scope="module")
def name(folder):
    """A wide film."""
    return film_id(read_predictions(folder / "MedicalPatchNet" / "predictions_test.csv").paths[0])


def decoded(uri, kind):
    head, _, content = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture).astype(float)


def tile(pictures, place):
    sheet = decoded(pictures["sheet"], "webp")[..., 0]
    row, column = divmod(place, ACROSS)
    return sheet[row * MAP_SIDE : (row + 1) * MAP_SIDE, column * MAP_SIDE : (column + 1) * MAP_SIDE]


@pytest.mark.parametrize(("protocol", "method"), list(itertools.product(("corrected", "published"), ("raw", "scaled"))))
def test_an_evidence_map_is_its_square_around_the_neutral_level(sources, name, protocol, method):
    pictures = film_pictures(name, sources, CHEXPERT)
    place, x, y, logit = pictures["maps"][f"{protocol} {method}"]["Edema"]
    heat = sources.maps[protocol, method].load(name, "Edema")
    square = heat.map if protocol == "published" else heat.map[:, 8:72]  # 80 x 64 pixels
    small = np.asarray(Image.fromarray(square).resize((MAP_SIDE, MAP_SIDE), Image.Resampling.BILINEAR))
    row, column = (int(at * size / 1000) for at, size in zip((y, x), square.shape, strict=True))
    assert square[row, column] == square.max()
    assert logit == pytest.approx(400 * np.abs(heat.map - 0.5).max(), rel=0.01)
    restored = 0.5 + (tile(pictures, place) - LEVELS - 1) / LEVELS * logit / 400
    np.testing.assert_allclose(restored, small, atol=0.52 * logit / 400 / LEVELS + 0.01 * logit / 400)


def test_a_cam_is_stored_once_and_eigencam_once_for_all_labels(sources, name):
    pictures = film_pictures(name, sources, CHEXPERT)
    maps = pictures["maps"]
    assert maps["corrected gradcam"] == maps["published gradcam"]
    assert len({tuple(place) for place in maps["published gradcam"].values()}) == len(CHEXPERT.task_names)
    assert len({tuple(place) for place in maps["corrected eigencam"].values()}) == 1
    used = {place[0] for of_method in maps.values() for place in of_method.values()}
    assert used == set(range(len(CHEXPERT.task_names) * 6 + 1))
    heat = sources.maps["published", "gradcam++"].load(name, "Edema").map
    small = np.asarray(Image.fromarray(heat).resize((MAP_SIDE, MAP_SIDE), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(tile(pictures, maps["corrected gradcam++"]["Edema"][0]) / 255, small, atol=0.003)


def test_film_and_crop(sources, name):
    pictures = film_pictures(name, sources, CHEXPERT)
    film = decoded(pictures["film"], "jpeg")
    assert pictures["whole"] and pictures["shape"] == [960, 768] and film.shape == (64, 80)  # shown large, stored as is
    stored = sources.maps["corrected", "raw"].film_pixels(name)
    np.testing.assert_allclose(film / 255, stored, atol=0.03)
    crop = Crop.centred(160, 128)
    assert pictures["crop"] == [crop.left / 160, 0, 128 / 160, 1]


def test_a_film_is_shown_as_large_as_its_evidence_file_holds_it(sources, name, folder):
    """And in smaller steps; a file without a larger film shows that under the maps."""
    large = torch.from_numpy(film_of(np.random.default_rng(5), 900, 1125))[None]
    path = folder / "MedicalPatchNet" / "evidence" / "test" / f"{name}.npz"
    before, stored = path.read_bytes(), sources.films_large.page_film(name)
    np.testing.assert_array_equal(stored, sources.maps["corrected", "raw"].film_pixels(name))
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **arrays, **{"page film": encoded_film(large, 64)})
    try:
        expected = np.asarray(Image.fromarray(large[0].numpy()).resize((960, 768), Image.Resampling.BILINEAR))
        pictures = film_pictures(name, sources, CHEXPERT)
        film = decoded(pictures["film"], "jpeg")
        assert film.shape == (768, 960) and pictures["shape"] == [960, 768]
        np.testing.assert_allclose(film / 255, expected, atol=0.02)
        sizes = [decoded(larger_film(name, sources, size), "jpeg").shape for size in STEPS]
        assert sizes == [(768, 960), (768, 960), (640, 800), (512, 640)]
    finally:
        path.write_bytes(before)


def test_films_step_down_until_the_same_films_fit(sources, folder):
    """Noise, which compresses badly: half a page of the best size holds all films in a smaller one."""
    names = [f"{path.stem}" for path in sorted((folder / "MedicalPatchNet" / "evidence" / "test").glob("*.npz"))][:3]
    noise = np.random.default_rng(0).random((800, 800), np.float32)

    class Noise:
        entries = [(name, "Edema") for name in names]

        @staticmethod
        def page_film(_):
            return noise

    kept = {key: Few(source, names) for key, source in sources.maps.items() if key == ("corrected", "raw")}
    few = MapSources(kept, films_large=Noise())
    listed = read_case_list(read_results(folder))
    best, size = shown_films(listed, few, 10**9)
    assert len(best) == 3 and size == STEPS[0]
    budget = sum(len(json.dumps(pictures)) for pictures in best.values())
    shown, size = shown_films(listed, few, budget * 5 // 6)
    assert list(shown) == list(best) and size == STEPS[1]
    shown, size = shown_films(listed, few, budget // 6)
    assert size == STEPS[-1] and 0 < len(shown) < 3


class Few:
    """The maps of some films of a source."""

    def __init__(self, source, names):
        self.entries = [entry for entry in source.entries if entry[0] in names]
        self.load, self.film_pixels = source.load, source.film_pixels


def test_outlines_are_called_what_is_recorded_beside_them(tmp_path):
    """And plain outlines where nothing is, or nothing that is known."""
    masks, record = tmp_path / "gt_segmentations_test.json", tmp_path / "dataset.json"
    assert outline_name(masks) == "true outline"
    names = {"drawn": "drawn outline", "radiologists": "radiologist’s outline", "me": "true outline"}
    for recorded, name in (*names.items(), (None, "true outline"), ([1], "true outline")):
        write_json(record, {"outlines": recorded})
        assert outline_name(masks) == name
    record.write_text("{")
    with pytest.raises(InputError, match="dataset.json"):
        outline_name(masks)


def test_patch_logits_average_to_the_logit_of_the_unshifted_grid(sources, name, folder):
    patches = film_pictures(name, sources, CHEXPERT)["patches"]
    assert set(patches) == {CHEXPERT.label_of(task) for task in CHEXPERT.task_names}
    with np.load(folder / "MedicalPatchNet" / "evidence" / "test" / f"{name}.npz") as content:
        grid = content["grid Airspace Opacity"]  # 16 starts per axis, 4 per patch, 2 of them before the film
    np.testing.assert_allclose(patches["Lung Opacity"], grid[2::4, 2::4], rtol=1e-4)


def area(outline):
    """Shoelace formula, in pixels of the picture of 1000 x 1000."""
    x, y = np.array(outline[::2], float), np.array(outline[1::2], float)
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_outlines_enclose_the_mask(sources, folder, name):
    mask = np.zeros((120, 200), bool)
    mask[30:60, 50:150] = True
    mask[100:, 180:] = True  # reaches two borders
    masks = {task: encode_mask(mask if task == "Edema" else np.zeros_like(mask)) for task in CHEXPERT.task_names}
    pictures = film_pictures(name, MapSources(sources.maps, None, GroundTruth({name: masks})), CHEXPERT)
    assert list(pictures["masks"]) == ["Edema"] and pictures["patches"] == {}
    large, small = sorted(pictures["masks"]["Edema"], key=area, reverse=True)
    assert area(large) == pytest.approx(1e6 * 30 / 120 * 100 / 200, rel=0.02)
    assert area(small) == pytest.approx(1e6 * 20 / 120 * 20 / 200, rel=0.05)
    x, y = large[::2], large[1::2]
    assert (min(x), max(x), min(y), max(y)) == pytest.approx((250, 750, 250, 500), abs=3)
    assert max(small[::2]) == pytest.approx(1000, abs=3) and max(small[1::2]) == pytest.approx(1000, abs=3)


def test_published_pickles_alone_show_the_square(tmp_path, name):
    square = np.linspace(0.4, 0.55, 64, dtype=np.float32).reshape(8, 8)
    write_heat_map(
        tmp_path / heat_map_name(name, "Edema"), map=square, probability=0.5, task="Edema", ground_truth=1,
        film_size=(32, 16), film_pixels=np.full((8, 8), 0.5, np.float32),
    )  # fmt: skip
    mask = np.zeros((16, 32), bool)
    mask[:, :16] = True  # the left half: of the square, too
    truth = GroundTruth({name: {task: encode_mask(mask) for task in CHEXPERT.task_names}})
    pictures = film_pictures(name, MapSources({("published", "raw"): HeatMapFolder(tmp_path)}, None, truth), CHEXPERT)
    assert not pictures["whole"] and pictures["crop"] == [0, 0, 1, 1] and pictures["shape"] == [768, 768]
    assert list(pictures["maps"]) == ["published raw"]
    (outline,) = pictures["masks"]["Edema"]
    assert (min(outline[::2]), max(outline[::2])) == pytest.approx((0, 500), abs=4)


def cases(probabilities, truth, threshold=0.5):
    """A list of one label, Edema, that matters: all others are negative, with probability 0."""
    p, y = np.zeros((len(truth), len(CHEXPERT.names))), np.zeros((len(truth), len(CHEXPERT.names)), int)
    p[:, CHEXPERT.names.index("Edema")], y[:, CHEXPERT.names.index("Edema")] = probabilities, truth
    names = tuple(f"film{i}" for i in range(len(truth)))
    return CaseList(
        names, names, CHEXPERT, CHEXPERT.task_names, y, {"M": p}, {"M": np.full(len(CHEXPERT.names), threshold)}, {}, ()
    )


class TestPriority:
    def test_every_kind_of_case_comes_in_turn(self):
        """By hand. The other labels are true negatives of one probability, so they take films in the list's order."""
        several = cases([0.9, 0.99, 0.1, 0.2, 0.8, 0.05, 0.95], [1, 1, 1, 1, 0, 0, 0])
        order = list(by_priority(several, set(several.films)))
        # labels before Edema among the tasks take films 0, 1, 2 and 3; then Edema's TP, FN, FP and TN in turn
        assert sorted(order) == list(range(7))
        assert order[:4] == [0, 1, 2, 3] and order[4:6] == [6, 5]

    def test_only_films_with_maps_and_the_same_twice(self):
        several = cases([0.9, 0.2, 0.6], [1, 0, 1])
        assert list(by_priority(several, {"film2", "film1"})) == list(by_priority(several, {"film1", "film2"}))
        assert set(by_priority(several, {"film2", "film1"})) == {1, 2}

    def test_without_thresholds_films_are_still_shown(self):
        several = cases([0.9, 0.2], [1, 0], threshold=np.nan)
        assert sorted(by_priority(several, set(several.films))) == [0, 1]


def test_the_list_keeps_the_file_s_probabilities(folder):
    """An outcome is decided at the last digit: a threshold is some film's probability."""
    results = read_results(folder)
    listed = read_case_list(results).content()
    predictions = read_predictions(folder / "EfficientNetB0" / "predictions_test.csv")
    assert listed["models"][1]["name"] == "EfficientNet-B0"
    assert listed["models"][1]["probability"] == predictions.probabilities.tolist()
    assert listed["truth"] == ["".join(str(int(label)) for label in row) for row in predictions.labels]
