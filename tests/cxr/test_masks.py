import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from cxr.files import InputError
from cxr.labels import CHEXPERT
from cxr.masks import (
    GroundTruth,
    boxes_to_mask,
    decode_mask,
    encode_mask,
    polygons_to_mask,
    read_ground_truth,
)

FILM = "patient64541_study1_view1_frontal"
TASKS = CHEXPERT.task_names


def slow_decode(code):
    """One character and one run at a time, as COCO documents the code."""
    runs, position = [], 0
    while position < len(code["counts"]):
        number, shift = 0, 0
        while True:
            digit = ord(code["counts"][position]) - 48
            number |= (digit & 0x1F) << shift
            shift, position = shift + 5, position + 1
            if not digit & 0x20:
                break
        if digit & 0x10:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
    pixels = [inside % 2 for inside, run in enumerate(runs) for _ in range(run)]
    height, width = code["size"]
    return [[bool(pixels[x * height + y]) for x in range(width)] for y in range(height)]


def content(size=(4, 6), **masks):
    empty = encode_mask(np.zeros(size))
    return {FILM: {task: masks.get(task, empty) for task in TASKS}}


def test_code_by_hand():
    # columns (0, 1) and (1, 1): one pixel outside, then three inside
    assert encode_mask(np.array([[0, 1], [1, 1]])) == {"size": [2, 2], "counts": "13"}
    assert decode_mask({"size": [2, 2], "counts": "13"}).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("seed", range(20))
def test_codes_decode_to_their_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 80, 2)) < rng.random()
    code = encode_mask(mask)
    assert np.array_equal(decode_mask(code), mask)
    assert slow_decode(code) == mask.tolist()
    assert decode_mask(code).flags.c_contiguous


def test_area_and_mask_of_a_film():
    mask = np.zeros((40, 30), dtype=np.uint8)
    mask[3:17, 5:9] = 255
    truth = GroundTruth(content((40, 30), Edema=encode_mask(mask)))
    assert truth.image_ids == [FILM] and FILM in truth and "other" not in truth
    assert truth.size(FILM) == (40, 30)
    assert truth.area(FILM, "Edema") == 14 * 4 and truth.area(FILM, "Atelectasis") == 0
    assert np.array_equal(truth.mask(FILM, "Edema"), mask > 0)
    assert truth.mask(FILM, "Atelectasis").shape == (40, 30) and not truth.mask(FILM, "Atelectasis").any()


def test_a_task_that_a_film_lacks_was_not_looked_for():
    masks = {"A": {"Mass": encode_mask(np.ones((2, 3))), "Nodule": encode_mask(np.zeros((2, 3)))},
             "B": {"Nodule": encode_mask(np.eye(4))}}  # fmt: skip
    truth = GroundTruth(masks)
    assert truth.tasks == ("Mass", "Nodule") and truth.kinds == {"Mass": "mask", "Nodule": "mask"}
    annotated = {(film, task) for film in "AB" for task in truth.tasks if truth.annotates(film, task)}
    assert annotated == {("A", "Mass"), ("A", "Nodule"), ("B", "Nodule")}
    assert (truth.area("A", "Mass"), truth.area("A", "Nodule"), truth.area("B", "Mass")) == (6, 0, 0)
    of_b = truth.of_films(["B", "C"])
    assert of_b.image_ids == ["B"] and of_b.tasks == ("Nodule",)
    with pytest.raises(InputError, match="no region of any of the 1 films"):
        truth.of_films(["C"])


@pytest.mark.parametrize("seed", range(10))
def test_uncompressed_codes_are_the_runs_down_the_columns(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    code = {"size": list(mask.shape), "counts": runs}
    assert np.array_equal(decode_mask(code), mask)
    truth = GroundTruth({FILM: {"Edema": code}})
    assert truth.area(FILM, "Edema") == mask.sum() and np.array_equal(truth.mask(FILM, "Edema"), mask)


def slow_boxes(boxes, size):
    """Pixel by pixel: whether its centre lies in a box."""
    height, width = size
    return [
        [any(x <= col + 0.5 < x + w and y <= row + 0.5 < y + h for x, y, w, h in boxes) for col in range(width)]
        for row in range(height)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_against_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(4, 30, 2))
    boxes = []
    for _ in range(rng.integers(1, 6)):
        x, y = (float(rng.uniform(-3, side - 1)) for side in size[::-1])
        w, h = (float(rng.uniform(4, 12)) for _ in range(2))  # reaches at least one pixel's centre inside the film
        boxes.append([round(v, int(rng.integers(0, 3))) for v in (x, y, w, h)])
    expected = np.array(slow_boxes(boxes, size))
    assert np.array_equal(boxes_to_mask(boxes, size), expected)
    truth = GroundTruth({FILM: {"Mass": {"size": list(size), "kind": "box", "boxes": boxes}}})
    assert truth.kinds == {"Mass": "box"} and truth.area(FILM, "Mass") == expected.sum()
    assert np.array_equal(truth.mask(FILM, "Mass"), expected)


def test_boxes_by_hand():
    assert boxes_to_mask([[1, 0, 2, 1]], (2, 4)).tolist() == [[False, True, True, False], [False] * 4]
    assert boxes_to_mask([[0.6, 0.6, 0.2, 0.2]], (2, 2)).tolist() == [[False, False], [False, True]], "at least a pixel"
    empty = GroundTruth({FILM: {"Mass": {"size": [3, 3], "boxes": []}}})
    assert empty.annotates(FILM, "Mass") and empty.area(FILM, "Mass") == 0 and not empty.mask(FILM, "Mass").any()


def test_a_large_film_is_measured_without_being_drawn():
    size = [9_999, 8_000]
    truth = GroundTruth({FILM: {"Mass": {"size": size, "boxes": [[0, 0, 8_000, 9_999], [1, 1, 5, 5]]}}})
    assert truth.area(FILM, "Mass") == size[0] * size[1]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=126), max_size=12))
def test_any_other_string_is_refused(counts):
    code = {"size": [3, 5], "counts": counts}
    try:
        mask = decode_mask(code)
    except ValueError:
        return
    assert slow_decode(code) == mask.tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.clear(), "at least one film"),
        (lambda c: c[FILM].clear(), f"{FILM}: expected an object of task -> mask"),
        (lambda c: c[FILM].update(Edema=[]), f"{FILM}, Edema: expected a mask"),
        (lambda c: c[FILM].update({"a/b": c[FILM]["Edema"]}), f"{FILM}, a/b: not the name of a task"),
        (lambda c: c.update({"a/b": c.pop(FILM)}), "'a/b' is not an image id"),
        (lambda c: c.update({FILM: [1]}), f"{FILM}: expected an object"),
        (lambda c: c[FILM]["Edema"].update(size=[4, 6.5]), f"{FILM}, Edema: size [4, 6.5]"),
        (lambda c: c[FILM]["Edema"].update(size=[0, 6]), f"{FILM}, Edema: size [0, 6]"),
        (lambda c: c[FILM].update(Edema=encode_mask(np.zeros((6, 4)))), f"{FILM}, Edema: 6 x 4 pixels, but"),
        (lambda c: c[FILM]["Edema"].update(counts="~~~"), f"{FILM}, Edema: 'counts' is not a run-length code"),
        (lambda c: c[FILM]["Edema"].update(counts="P"), "cut short"),
        (lambda c: c[FILM]["Edema"].update(counts="1"), "do not make up 4 x 6 pixels"),
        (lambda c: c[FILM]["Edema"].update(counts="?O:"), "do not make up 4 x 6 pixels"),  # runs of 15, -1, 10
        (lambda c: c[FILM]["Edema"].update(counts=None), "not a string"),
        (lambda c: c[FILM]["Edema"].update(counts=[]), "do not make up 4 x 6 pixels"),
        (lambda c: c[FILM]["Edema"].update(counts=[20, 5]), "do not make up 4 x 6 pixels"),
        (lambda c: c[FILM]["Edema"].update(counts=[30, -6]), "something else than whole numbers"),
        (lambda c: c[FILM]["Edema"].update(counts=[24.0]), "something else than whole numbers"),
        (lambda c: c[FILM]["Edema"].update(counts=[10**40]), "something else than whole numbers"),
        (lambda c: c[FILM]["Edema"].update(size=[60_000, 60_000]), "60000 x 60000 pixels; the limit is 100 megapixels"),
        (lambda c: c[FILM]["Edema"].update(size=[20_000, 20_000]), "20000 x 20000 pixels; the limit is"),
        (lambda c: c[FILM]["Edema"].update(size=[10**90, 6]), "6 x a number of 299 bits pixels"),
        (lambda c: c[FILM]["Edema"].update(boxes=[]), "no 'counts' beside it"),
        (lambda c: c[FILM].update(Edema={"size": [4, 6], "boxes": 3}), "expected a list of [x, y, width, height]"),
        (lambda c: c[FILM].update(Edema={"size": [4, 6], "boxes": [[0, 0, 2]]}), "is not [x, y, width, height]"),
        (
            lambda c: c[FILM].update(Edema={"size": [4, 6], "boxes": [[0, 0, 0, 2]]}),
            "the box [0, 0, 0, 2] has no pixel",
        ),
        (
            lambda c: c[FILM].update(Edema={"size": [4, 6], "boxes": [[6, 0, 1, 1]]}),
            "the box [6, 0, 1, 1] has no pixel",
        ),
        (
            lambda c: c[FILM].update(Edema={"size": [4, 6], "boxes": [[0, 0, 1, 10**90]]}),
            "is not [x, y, width, height]",
        ),
    ],
)
def test_mistakes_in_the_ground_truth_are_told_in_one_line(tmp_path, change, words):
    path = tmp_path / "gt.json"
    damaged = json.loads(json.dumps(content()))
    change(damaged)
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError) as error:
        read_ground_truth(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_json(tmp_path):
    (tmp_path / "gt.json").write_text('{"a": ')
    with pytest.raises(InputError, match="not a json file"):
        read_ground_truth(tmp_path / "gt.json")


def test_polygons_cover_their_outline():
    mask = polygons_to_mask([[[1, 1], [3, 1], [3, 2], [1, 2]], [[5.0, 0.0], [5.0, 3.0]]], (4, 7))
    expected = np.zeros((4, 7), dtype=bool)
    expected[1:3, 1:4] = True
    expected[:, 5] = True
    assert np.array_equal(mask, expected)


def test_annotations_are_drawn(tmp_path):
    triangle = [[1.2, 1.5], [7.9, 2.0], [4.0, 8.4]]
    path = tmp_path / "gt_annotations_val.json"
    path.write_text(json.dumps({FILM: {"img_size": [10, 12], "Edema": [triangle]}}))
    truth = read_ground_truth(path)
    assert truth.size(FILM) == (10, 12)
    assert np.array_equal(truth.mask(FILM, "Edema"), polygons_to_mask([triangle], (10, 12)))
    assert 15 < truth.area(FILM, "Edema") < 35 and truth.area(FILM, "Pneumothorax") == 0


def test_annotations_of_foreign_tasks_are_drawn(tmp_path):
    path = tmp_path / "annotations.json"
    films = {"A": {"img_size": [10, 12], "Mass": [[[1, 1], [5, 1], [5, 5]]]}, "B": {"img_size": [6, 6]}}
    path.write_text(json.dumps(films))
    truth = read_ground_truth(path)
    assert truth.tasks == ("Mass",) and truth.annotates("B", "Mass") and truth.area("B", "Mass") == 0


@pytest.mark.parametrize(
    ("film", "words"),
    [
        ({"img_size": [10], "Edema": []}, "img_size: size [10]"),
        ({"img_size": [10, 12], "Edema": [[[1, 2]]]}, "Edema: expected polygons"),
        ({"img_size": [10, 12], "Edema": [[[1, 2], [3, "x"]]]}, "Edema: expected polygons"),
        ({"img_size": [10, 12], "Edema": [[[1, 2], [3, 10**90]]]}, "Edema: expected polygons"),
        ({"img_size": [10, 12], "Edema": [[[1, 2], [3, 1e300]]]}, "Edema: expected polygons"),
        ({"img_size": [60_000, 60_000], "Edema": []}, "img_size: 60000 x 60000 pixels; the limit is 100 megapixels"),
    ],
)
def test_mistakes_in_annotations(tmp_path, film, words):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({FILM: film}))
    with pytest.raises(InputError) as error:
        read_ground_truth(path)
    assert words in str(error.value) and FILM in str(error.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_pycocotools_reads_the_same_masks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        code = encode_mask(rng.random(rng.integers(1, 60, 2)) < rng.random() ** 3)
        assert np.array_equal(coco.decode(code), decode_mask(code))
