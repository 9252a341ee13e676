"""The picture of the method shows a film that its rule allows, with its votes, their sum and the decision."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.labels import CHEXPERT
from cxr.masks import read_ground_truth
from makeReport import map_sources
from reporting.pictures.case_grid import in_crop
from reporting.pictures.method_figure import _chosen, method_figure
from reporting.reading import read_results
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("method") / "results"
    write_results(folder, films=12)
    write_case_files(folder)
    return folder


def sources_of(folder, masks=True):
    results = read_results(folder)
    return results, map_sources(results, folder, folder / "gt_segmentations_test.json" if masks else None)


def test_the_case_is_a_called_positive_hit_by_its_map_and_the_surest_of_them(folder):
    """Every film and task gone through by hand: the first by falling probability that meets the rule."""
    results, sources = sources_of(folder)
    truth = read_ground_truth(folder / "gt_segmentations_test.json")
    predictions, found = results.patch.predictions, []
    for film, labels, probabilities in zip(predictions.ids, predictions.labels, predictions.probabilities, strict=True):
        for task in CHEXPERT.task_names:
            column = predictions.names.index(CHEXPERT.label_of(task))
            if labels[column] != 1 or probabilities[column] < 0.4:
                continue
            heat = sources.maps["corrected", "raw"].load(film, task)
            y, x = np.unravel_index(np.argmax(heat.map), heat.map.shape)
            mask = truth.mask(film, task)
            at = int(y * mask.shape[0] / heat.map.shape[0]), int(x * mask.shape[1] / heat.map.shape[1])
            if mask[at]:
                large = bool(in_crop(mask, mask.shape[::-1]).mean() > 0.1)
                found.append((large, -probabilities[column], film, task))
    large, p, film, task = min(found)
    case = _chosen(results, sources)
    assert (case.label, case.probability, case.threshold) == (CHEXPERT.label_of(task), -p, 0.4)
    np.testing.assert_array_equal(case.votes, sources.patches.patch_logits(film, task))
    assert case.film.shape == case.fine.shape == case.cam.shape


def test_votes_for_and_against_and_their_sum_are_written(folder):
    results, sources = sources_of(folder)
    case = _chosen(results, sources)
    figure, missing = method_figure(results, sources, "drawn films")
    written = [text.get_text() for axes in figure.axes for text in axes.texts]
    shares = case.votes / case.votes.size
    for value in (shares[shares > 0].sum(), shares[shares < 0].sum(), shares.mean() * shares.size):
        assert f"{value:+.2f}".replace("-", "−") in written
    assert missing == ""
    assert f"probability {case.probability:.2f}" in written
    votes = [float(text.get_text().replace("−", "-")) for text in figure.axes[1].texts[: case.votes.size]]
    np.testing.assert_allclose(votes, case.votes.ravel(), atol=0.051)
    assert [axes.get_title() for axes in figure.axes][0] == "film (drawn films)"
    drawn, _ = method_figure(results, replace(sources, outline="drawn outline"), "drawn films")
    assert [axes.get_title() for axes in drawn.axes][0] == "drawn film"


def test_without_outlines_or_positives_it_says_what_is_missing(folder):
    assert method_figure(*sources_of(folder, masks=False))[1].endswith("and the outlines (--gt-path)")
    results, sources = sources_of(folder)
    for column in range(len(CHEXPERT.names)):
        results.patch.predictions.labels[:, column] = 0
    assert "no film whose finding is called" in method_figure(results, sources)[1]
