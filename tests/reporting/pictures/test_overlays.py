"""Colours of overlays against hand-computed ones; which cases are shown, and that they are shown in place."""

import numpy as np
import pytest

from cxr.files import write_json
from cxr.heat_maps import HeatMapFolder, heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from cxr.predictions import Predictions, write_predictions
from reporting.paper import read_paper
from reporting.pictures.case_grid import case_figure, choose_cases, in_crop, resized
from reporting.pictures.overlays import SIGNED, CasePictures, case_grid, evidence_scale, overlay, tint
from reporting.reading import read_results
from tests.reporting.result_files import MODEL

WHITE, RED, BLUE = np.array([247, 247, 247]), np.array([103, 0, 31]), np.array([5, 48, 97])
"""Middle and ends of ColorBrewer's RdBu."""


class TestOverlay:
    def test_evidence_is_red_for_blue_against_and_white_where_neutral(self):
        film = np.array([[0.0, 0.2, 1.0]])
        shown = overlay(film, np.array([[0.5 - 0.02, 0.5, 0.5 + 0.02]]), signed=True)
        assert shown.dtype == np.uint8 and shown.shape == (1, 3, 3)
        for pixel, colour, grey in zip(shown[0], (BLUE, WHITE, RED), film[0], strict=True):
            np.testing.assert_allclose(pixel, colour / 2 + 255 * grey / 2, atol=1.5)

    def test_scale_is_symmetric_around_neutral(self):
        """The weaker side does not reach full colour."""
        heat = np.array([[0.5 - 0.01, 0.5, 0.5 + 0.04]])
        assert evidence_scale(heat) == pytest.approx(0.04)
        shown = overlay(np.zeros((1, 3)), heat, signed=True)[0].astype(int)
        assert shown[0][0] > 60 and np.abs(shown[2] - RED / 2).max() <= 1  # a pale blue, and full red
        mirrored = overlay(np.zeros((1, 3)), 1 - heat, signed=True)[0]
        np.testing.assert_allclose(mirrored[2], BLUE / 2, atol=1)

    def test_map_without_evidence_is_white_all_over(self):
        shown = overlay(np.zeros((2, 2)), np.full((2, 2), 0.5), signed=True)
        assert evidence_scale(np.full((2, 2), 0.5)) == 0
        np.testing.assert_allclose(shown, np.broadcast_to(WHITE / 2, (2, 2, 3)), atol=1.5)

    def test_cam_goes_from_white_to_red(self):
        shown = overlay(np.zeros((1, 2)), np.array([[0.0, 1.0]]), signed=False)[0]
        np.testing.assert_allclose(shown, [WHITE / 2, RED / 2], atol=1.5)

    @pytest.mark.parametrize("colours", [overlay, tint])
    def test_shapes_must_agree(self, colours):
        with pytest.raises(ValueError, match="one shape"):
            colours(np.zeros((2, 3)), np.zeros((3, 2)), signed=True)


class TestTint:
    def test_the_film_is_bare_where_the_map_is_neutral_and_covered_with_the_evidence(self):
        film = np.array([[0.0, 0.2, 1.0, 0.6]])
        shown = tint(film, 0.5 + np.array([[-0.02, 0.0, 0.02, 0.01]]), signed=True)[0].astype(float)
        np.testing.assert_allclose(shown[1], 51)
        for pixel, sign, share, grey in ((0, -1, 0.65, 0.0), (2, 1, 0.65, 1.0), (3, 1, 0.325, 0.6)):
            colour = 255 * np.array(SIGNED(0.5 + sign * 0.42)[:3])
            np.testing.assert_allclose(shown[pixel], share * colour + (1 - share) * 255 * grey, atol=1)

    def test_a_cam_of_zero_leaves_the_film(self):
        shown = tint(np.array([[0.4, 0.4]]), np.array([[0.0, 1.0]]), signed=False)[0]
        np.testing.assert_allclose(shown[0], 102)
        assert shown[1][0] > shown[1][2] + 60  # red

    def test_the_film_keeps_more_of_its_contrast_than_under_half_and_half(self):
        rng = np.random.default_rng(0)
        film, heat = rng.random((64, 64)), 0.5 + 0.1 * np.sin(np.linspace(0, 6, 64))[None].repeat(64, 0)
        contrast = {f: f(film, heat, signed=True).mean(axis=2).std(axis=0).mean() for f in (overlay, tint)}
        assert contrast[tint] > 1.1 * contrast[overlay]


def films(probabilities, truth, task="Pleural Effusion"):
    """Predictions of one task: film i is patient i; the other labels are negative with probability 0."""
    p, y = np.zeros((len(truth), len(CHEXPERT.names))), np.zeros((len(truth), len(CHEXPERT.names)), np.int8)
    p[:, CHEXPERT.names.index(task)], y[:, CHEXPERT.names.index(task)] = probabilities, truth
    return Predictions(tuple(f"test/patient{i}/study1/view1_frontal.jpg" for i in range(len(truth))), p, y, CHEXPERT)


def name(i):
    return f"patient{i}_study1_view1_frontal"


class TestChoice:
    def test_highest_positive_then_lowest_negative(self):
        predictions = films([0.9, 0.7, 0.8, 0.3, 0.1, 0.2], [0, 1, 1, 1, 0, 0])
        available = {(name(i), "Pleural Effusion") for i in range(6)}
        chosen = choose_cases(predictions, CHEXPERT, available)
        assert [(str(rule), film) for rule, film in chosen] == [
            ("highest p, positives", name(2)),
            ("lowest p, negatives", name(4)),
        ]

    def test_only_films_with_maps_and_the_first_of_a_tie(self):
        predictions = films([0.8, 0.8, 0.9, 0.5], [1, 1, 1, 1])
        available = {(name(i), "Pleural Effusion") for i in (1, 0, 3)}
        assert choose_cases(predictions, CHEXPERT, available) == [(read_paper().case_rules[0], name(0))]

    def test_negative_that_the_model_is_most_wrong_about(self):
        predictions = films([0.1, 0.6, 0.2, 0.9], [0, 0, 0, 1], "Support Devices")
        available = {(name(i), "Support Devices") for i in range(4)}
        chosen = [(str(rule), film) for rule, film in choose_cases(predictions, CHEXPERT, available)]
        assert chosen == [("highest p, positives", name(3)), ("highest p, negatives", name(1))]

    def test_no_film_twice_while_there_is_another(self):
        predictions = films([0.9, 0.5], [1, 1])
        both = CHEXPERT.names.index("Pneumothorax")
        predictions.probabilities[:, both], predictions.labels[:, both] = [0.9, 0.6], 1
        available = {(name(i), task) for i in range(2) for task in ("Pleural Effusion", "Pneumothorax")}
        assert [film for _, film in choose_cases(predictions, CHEXPERT, available)] == [name(0), name(1)]
        assert [film for _, film in choose_cases(predictions, CHEXPERT, available - {(name(1), "Pneumothorax")})] == [
            name(0)
        ] * 2


@pytest.mark.parametrize(
    ("film_size", "shape", "rows", "columns"),
    [
        ((8, 4), (4, 8), slice(0, 4), slice(2, 6)),
        ((8, 4), (8, 16), slice(0, 8), slice(4, 12)),
        ((40, 80), (8, 4), slice(2, 6), slice(0, 4)),
        ((6, 6), (3, 3), slice(0, 3), slice(0, 3)),
    ],
)
def test_in_crop_is_the_centred_square_at_the_plane_s_resolution(film_size, shape, rows, columns):
    plane = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(in_crop(plane, film_size), plane[rows, columns])


def test_resized_keeps_a_constant_and_what_fits():
    plane = np.full((3, 5), 0.25, np.float32)
    assert resized(plane, (3, 5)) is plane
    np.testing.assert_allclose(resized(plane, (8, 4)), 0.25, rtol=1e-6)


@pytest.fixture
def heatmaps(tmp_path):
    """Two films of 32 x 16 pixels, the first positive; maps of 8 x 8 in the crop, of 16 x 8 in the film."""
    predictions = films([0.9, 0.2], [1, 0])
    square = np.full((8, 8), 0.5, np.float32)
    square[2:4, 2:4] = 0.51
    placed = np.full((8, 16), square.min(), np.float32)
    placed[:, 4:12] = square
    film = np.tile(np.linspace(0.1, 0.6, 16, dtype=np.float32), (8, 1))
    for model, methods in (("MedicalPatchNet", ("raw",)), ("EfficientNetB0", ("gradcam", "gradcam++", "eigencam"))):
        write_json(tmp_path / model / "run.json", {"model": MODEL[model]})
        write_predictions(tmp_path / model / "predictions_test.csv", predictions)
        for protocol, plane, pixels in (("published", square, film[:, 4:12]), ("corrected", placed, film)):
            for method in methods:
                folder = tmp_path / model / "heatmaps" / protocol / "test" / method
                for i in range(2):
                    write_heat_map(
                        folder / heat_map_name(name(i), "Pleural Effusion"),
                        map=plane,
                        probability=0.9 - 0.7 * i,
                        task="Pleural Effusion",
                        ground_truth=1 - i,
                        film_size=(32, 16),
                        film_pixels=pixels,
                    )
    return tmp_path


@pytest.fixture
def ground_truth():
    mask = np.zeros((16, 32), bool)
    mask[4:8, 12:16] = True  # in the 8 x 8 crop: rows 2-3, columns 2-3
    return GroundTruth({name(0): {task: encode_mask(mask) for task in CHEXPERT.task_names}})


def sources(root, protocol):
    """Method -> its pickles, of the methods that have any."""
    folders = sorted(root.glob(f"*/heatmaps/{protocol}/test/*"))
    return {folder.name: HeatMapFolder(folder) for folder in folders if any(folder.iterdir())}


class TestCaseFigure:
    @pytest.mark.parametrize("protocol", ["published", "corrected"])
    def test_both_protocols_show_map_and_mask_in_the_same_square(self, heatmaps, ground_truth, protocol):
        figure, missing = case_figure(
            read_results(heatmaps), protocol, sources(heatmaps, protocol), ground_truth, "made-up films"
        )
        assert missing == ""
        film, raw, gradcam = figure.axes[:3]
        np.testing.assert_allclose(film.images[0].get_array()[5], np.linspace(0.1, 0.6, 16)[4:12], rtol=1e-6)
        shown = np.asarray(raw.images[0].get_array()).astype(int)  # (8, 8, 3)
        red = shown[..., 0] - shown[..., 2] > 20
        expected = np.zeros((8, 8), bool)
        expected[2:4, 2:4] = True
        np.testing.assert_array_equal(red, expected)
        (outline,) = [c for c in film.collections if len(c.get_paths())]
        vertices = np.concatenate([path.vertices for path in outline.get_paths()])
        assert vertices.min() == 1.5 and vertices.max() == 3.5  # the edges of pixels 2 and 3
        written = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert {"Pleural Effusion", "truth: present", "truth: absent", "MedicalPatchNet 0.90", "±4"} <= set(written)
        assert raw.get_title() == "Raw evidence\nMedicalPatchNet" and gradcam.get_title() == "Grad-CAM\nEfficientNet-B0"
        titles = [text.get_text() for text in figure.texts]
        assert f"Evidence and class activation maps, {protocol} protocol" in titles
        assert any(title.startswith("Test films (made-up films). Pictures show") for title in titles)

    def test_a_method_without_maps_says_so(self, heatmaps):
        for path in (heatmaps / "EfficientNetB0/heatmaps/published/test/eigencam").glob("*.pkl"):
            path.unlink()
        figure, _ = case_figure(read_results(heatmaps), "published", sources(heatmaps, "published"), None)
        assert [text.get_text() for text in figure.axes[4].texts] == ["no map"]

    def test_nothing_to_show_is_told_with_its_command(self, heatmaps):
        figure, missing = case_figure(read_results(heatmaps), "published", {}, None)
        assert figure is None and "no heat maps of the published protocol; made by python evalClass" in missing
        (heatmaps / "MedicalPatchNet/predictions_test.csv").unlink()
        figure, missing = case_figure(read_results(heatmaps), "published", sources(heatmaps, "published"), None)
        assert figure is None and "predictions_test.csv: missing" in missing


def test_grid_has_a_row_per_case_and_a_column_per_method():
    row = CasePictures(np.zeros((4, 4)), None, {"raw": np.full((4, 4), 0.5)}, ("Edema", "truth: absent"))
    figure = case_grid([row, row, row], {"raw": "Raw", "gradcam": "Grad-CAM"}, signed=["raw"], title="T", caption="C")
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 3 * 3
    assert sum(text.get_text() == "no map" for axes in pictures for text in axes.texts) == 3
    weights = {text.get_text(): text.get_weight() for text in pictures[0].texts}
    assert weights == {"Edema": "bold", "truth: absent": "normal"}
