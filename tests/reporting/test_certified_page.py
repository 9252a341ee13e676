"""What the page says of contributions that are not complete, or not local: as run.json has measured it."""

import shutil

import pytest

import makeReport
from cxr.files import read_json, write_json
from reporting.page.facts import certificates_of, run_facts
from reporting.page.page import write_page
from reporting.reading import read_results
from tests.reporting.browser import choose, open_page

MEASURED = {"aggregation": "any", "films": 8, "complete_error": 2e-7, "local_error": 3e-7, "linear_error": 0.5}


def noted(folder, complete, local, split="test"):
    """Results of a network whose certificates are these."""
    path = folder / "MedicalPatchNet" / "run.json"
    certificates = {split: MEASURED | {"complete": complete, "local": local}}
    model = {"backbone": "b", "patch_size": 64, "image_size": 256, "aggregation": "any"}
    write_json(path, read_json(path) | {"certificates": certificates, "model": model})
    return read_results(folder)


@pytest.mark.parametrize(
    ("complete", "local", "words"),
    [
        (True, True, "sum to the logit (off by 2.0e-07) and do not change with other patches (3.0e-07); 8 test films"),
        (False, False, "contributions do not sum to the logit (off by 2.0e-07) and depend on neighbours (3.0e-07);"),
    ],
)
def test_the_run_s_facts_say_what_was_measured(folder, complete, local, words):
    results = noted(folder, complete, local)
    assert any(words in line for line in run_facts(results.patch).additivity)
    assert certificates_of(results.patch) == {"complete": complete, "local": local, "mean": False}


def test_validation_stands_in_and_strange_records_are_left_out(folder):
    results = noted(folder, False, True, split="val")
    assert certificates_of(results.patch) == {"complete": False, "local": True, "mean": False}
    assert certificates_of(None) == {"complete": True, "local": True, "mean": True}
    for strange in (3, {"test": 4}, {"test": {"complete_error": "x", "local_error": None}}):
        path = folder / "MedicalPatchNet" / "run.json"
        write_json(path, {"certificates": strange})
        facts = run_facts(read_results(folder).patch)
        assert facts.additivity == ()


@pytest.mark.parametrize(("complete", "local"), [(False, True), (True, False)])
def test_the_viewer_greys_a_sum_that_is_not_complete_and_names_neighbours(
    browser, paged_results, tmp_path, complete, local
):
    folder = shutil.copytree(paged_results, tmp_path / "results")
    results = noted(folder, complete, local)
    sources = makeReport.map_sources(results, folder, [])
    write_page(folder / "report.html", results, tables=[], pictures=[], sources=sources)
    page, complaints = open_page(browser, folder / "report.html")
    choose(page, 0, "Edema")
    text = page.locator("#sum-text").inner_text()
    assert ("which is not the logit" in text, "probability" in text) == (not complete, complete)
    grey = page.locator("#sum .bar").evaluate("bar => getComputedStyle(bar).filter")
    assert (grey == "grayscale(1)") == (not complete)
    page.locator("#patches button").first.focus()
    readout = page.locator("#patch-readout").inner_text()
    assert ("depends on neighbours" in readout) == (not local) and "its own logit" not in readout
    assert complaints == []
    page.close()
