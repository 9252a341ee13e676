"""Rows and columns of the page's tables open their cases; and axe-core finds no fault, where it is installed."""

import os
from pathlib import Path

import pytest

from cxr.labels import CHEXPERT
from tests.reporting.browser import drawn, open_page, state, until

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
"""npm install axe-core; the variable AXE_CORE names its file elsewhere."""


def follow(page, table, text):
    """Focuses the link of a row or column and presses Enter."""
    page.locator(f'.wide[aria-labelledby="{table}"] th a', has_text=text).first.focus()
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'list-table'")
    drawn(page)


def test_a_row_opens_the_cases_of_its_label(page):
    page.locator("#filter-text").fill("nothing like this")
    follow(page, "localization_published", "Edema")
    assert page.locator("#filter-label").input_value() == str(CHEXPERT.names.index("Edema"))
    assert page.locator("#filter-text").input_value() == ""
    assert (state(page, "label"), state(page, "protocol")) == ("Edema", "published")
    assert page.evaluate("list.rows.every(([, label]) => content.labels[label] === 'Edema') && list.rows.length") == 12
    assert "label=Edema" in page.evaluate("location.hash")
    assert abs(page.locator("#cases").bounding_box()["y"]) < 1000


def test_a_column_opens_the_cases_of_its_method(page):
    follow(page, "localization_published", "Grad-CAM++")
    assert (state(page, "method"), state(page, "protocol")) == ("gradcam++", "published")
    assert page.locator("#filter-model").input_value() == "1"  # the network that it explains


def test_an_address_opens_a_part_of_the_list(browser, paged_results):
    page, complaints = open_page(browser, paged_results / "report.html")
    address = (paged_results / "report.html").as_uri() + "#label=Cardiomegaly&disagree=1&model=EfficientNet-B0"
    page.goto("about:blank")
    complaints.clear()
    page.goto(address)
    drawn(page)
    assert page.locator("#filter-disagree").is_checked() and page.locator("#filter-model").input_value() == "1"
    rows = page.evaluate("list.rows.map(([film, label]) => [disagree(film, label), content.labels[label]])")
    assert rows and all(row == [True, "Cardiomegaly"] for row in rows)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_core_finds_no_violations(browser, paged_results, scheme):
    if not AXE.is_file():
        pytest.skip("no axe-core; npm install axe-core, or set AXE_CORE=/path/to/axe.min.js")
    for width in (1400, 420):
        options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "bypass_csp": True}
        page, _ = open_page(browser, paged_results / "report.html", **options)
        drawn(page)
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document)")
        assert [(rule["id"], len(rule["nodes"])) for rule in found["violations"]] == [] and found["passes"]
        page.close()
