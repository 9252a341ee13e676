"""The page in Debian's Chromium: opened from disk it loads nothing, and its list works by pointer and by keys."""

import re

import numpy as np
import pandas as pd
import pytest

from cxr.labels import CHEXPERT
from cxr.paths import film_id
from tests.reporting.browser import EVIL, choose, drawn, open_page, state

FILMS = 12


@pytest.fixture(scope="module")
def predictions(paged_results):
    """One row per film and label: what the list should hold."""
    table = pd.read_csv(paged_results / "MedicalPatchNet" / "predictions_test.csv")
    rows = [
        (film_id(film.Path), label, film[f"prob {label}"], film[f"label {label}"])
        for _, film in table.iterrows()
        for label in CHEXPERT.names
    ]
    cases = pd.DataFrame(rows, columns=["film", "label", "p", "truth"])
    called = cases["p"] >= 0.4
    cases["outcome"] = np.select(
        [called & (cases["truth"] == 1), called, cases["truth"] == 1], ["TP", "FP", "FN"], "TN"
    )
    return cases


def count(page):
    return int(page.locator("#list-count").inner_text().split()[0].replace(",", ""))


def column(page, place):
    return page.locator(f"#list-body tr:not(.space) td:nth-child({place})").all_inner_texts()


def test_what_a_path_says_is_text(page):
    """The fixture sees to it that nothing was run, asked for or complained about."""
    assert EVIL in page.locator("header").inner_text()
    choose(page, 0, "Edema")
    assert EVIL in page.locator("#verdict").inner_text()
    assert page.get_by_text(EVIL, exact=True).count() == 4  # heading and two cells of a table, the command of a run
    assert page.locator("main img[src=x]").count() == 0


def test_the_page_s_policy_forbids_what_it_does_not_hold(browser, paged_results):
    page, complaints = open_page(browser, paged_results / "report.html")
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in complaints)
    page.close()


def test_prediction_against_truth(page, predictions):
    names = {"TP": "true positive", "FP": "false positive", "FN": "false negative", "TN": "true negative"}
    for place in range(0, len(predictions), 41):
        case = predictions.iloc[place]
        choose(page, place // len(CHEXPERT.names), case["label"])
        text = page.locator("#verdict").inner_text()
        assert f"Truth: {'present' if case['truth'] else 'absent'}" in text
        assert f"MedicalPatchNet: {names[case['outcome']]}" in text and f"probability {case['p']:.3f}" in text


def test_filters(page, predictions):
    assert count(page) == len(predictions)
    for outcome in ("TP", "FP", "FN", "TN"):
        page.locator("#filter-outcome").select_option(outcome)
        assert count(page) == (predictions["outcome"] == outcome).sum()
        assert set(column(page, 5)) <= {outcome}
    page.locator("#filter-outcome").select_option("")
    page.locator("#filter-label").select_option(str(CHEXPERT.names.index("Edema")))
    assert count(page) == FILMS and set(column(page, 2)) == {"Edema"}
    page.locator("#filter-label").select_option("")
    page.locator("#filter-text").fill("64743 lung")
    chosen = predictions["film"].str.contains("64743") & predictions["label"].str.contains("Lung")
    assert count(page) == chosen.sum() == 2
    page.locator("#filter-text").fill("nothing like this")
    assert count(page) == 0


def short(value):
    """A film's name as the list shows it; other texts as they are."""
    return re.sub("^patient(.+)_study(.+)_view(.+)_", r"\1 s\2 v\3 ", str(value))


@pytest.mark.parametrize(("place", "key"), [(1, "film"), (2, "label"), (3, "p"), (5, "outcome")])
def test_sorting_both_ways(page, predictions, place, key):
    button = page.locator(f"#list-head th:nth-child({place}) button")
    for _ in range(2):
        button.click()
        order = page.locator(f"#list-head th:nth-child({place})").get_attribute("aria-sort")
        ordered = predictions[key].sort_values(ascending=order == "ascending", kind="stable").to_list()
        shown = column(page, place)
        expected = [f"{v:.3f}" if key == "p" else short(v) for v in ordered[: len(shown)]]
        assert order in ("ascending", "descending") and shown == expected
    assert page.locator("#list-head [aria-sort=none]").count() == 6


def test_hits_come_from_the_method_on_show(page, paged_results):
    scored = pd.read_csv(
        paged_results / "EfficientNetB0" / "localization" / "published" / "gradcam" / "hitmiss_results_per_cxr.csv"
    )
    page.keyboard.press("3")
    page.keyboard.press("p")
    page.locator("#filter-label").select_option(str(CHEXPERT.names.index("Edema")))
    page.locator("#list-head th:nth-child(1) button").click()
    expected = [{1.0: "hit", 0.0: "miss"}.get(value, "–") for value in scored["Edema"]]
    page.locator("#filter-model").select_option("1")
    assert column(page, 6) == expected and {"hit", "–"} <= set(expected)


def test_a_row_is_about_one_network(page, paged_results):
    """Grad-CAM is on show, but p and outcome are the patch model's: hits are those of its first method then."""
    place = paged_results / "MedicalPatchNet" / "localization" / "published" / "raw"
    scored = pd.read_csv(place / "hitmiss_results_per_cxr.csv")["Edema"]
    page.keyboard.press("3")
    page.keyboard.press("p")
    page.locator("#filter-label").select_option(str(CHEXPERT.names.index("Edema")))
    page.locator("#list-head th:nth-child(1) button").click()
    assert column(page, 6) == [{1.0: "hit", 0.0: "miss"}.get(value, "–") for value in scored]
    words = page.locator("#list-scores").inner_text()
    assert (
        words == "p and outcome of MedicalPatchNet; hit and IoU of its MedicalPatchNet (Raw) maps, published protocol."
    )
    page.locator("#filter-model").select_option("1")
    assert "of EfficientNet-B0; hit and IoU of its Grad-CAM maps" in page.locator("#list-scores").inner_text()


def test_list_holds_only_the_rows_in_sight_and_is_moved_through_by_keys(page, predictions):
    rows = page.locator("#list-body tr:not(.space)")
    assert rows.count() < 80 < len(predictions)
    page.locator("#list-table").focus()
    page.keyboard.press("End")
    lowest = predictions.loc[predictions["p"].idxmin()]
    assert (state(page, "film"), state(page, "label")) == (lowest["film"], lowest["label"])
    selected = page.locator("#list-body [aria-selected=true]")
    assert selected.count() == 1 and selected.get_attribute("aria-rowindex") == str(len(predictions) + 1)
    assert page.locator("#list-table").get_attribute("aria-activedescendant") == selected.get_attribute("id")
    frame, row = page.locator("#list").bounding_box(), selected.bounding_box()
    assert frame["y"] <= row["y"] and row["y"] + row["height"] <= frame["y"] + frame["height"] + 1
    page.keyboard.press("ArrowUp")
    second = predictions.sort_values("p").iloc[1]
    assert (state(page, "film"), state(page, "label")) == (second["film"], second["label"])


def test_keys(page, predictions):
    page.locator("#list-table").focus()
    page.keyboard.press("Home")
    ordered = predictions.sort_values("p", ascending=False)
    for key, place in (("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        assert (
            state(page, "film") == ordered.iloc[place]["film"] and state(page, "label") == ordered.iloc[place]["label"]
        )
    for key, name, value in (("p", "protocol", "published"), ("g", "patches", "false"), ("+", "opacity", "80"),
                             ("-", "opacity", "70"), ("5", "method", "eigencam")):  # fmt: skip
        page.keyboard.press(key)
        assert state(page, name) == value
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("p")
    assert state(page, "protocol") == "published"
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_keys_are_off_while_typing_and_when_told(page):
    page.locator("#filter-text").press_sequentially("p5")
    assert page.locator("#filter-text").input_value() == "p5"
    assert (state(page, "protocol"), state(page, "method")) == ("corrected", "raw")
    page.locator("#use-keys").uncheck()
    page.keyboard.press("5")
    assert state(page, "method") == "raw"


def test_works_by_tabulator_alone(page):
    """From the top, every control can be reached, and what has the focus can be seen."""
    page.locator("body").focus()
    reached = set()
    while "body" not in reached:
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const e = document.activeElement;
            return [e.id || e.name || e.localName, getComputedStyle(e).outlineStyle]; }"""
        )
        assert outline != "none" or name == "body"
        reached.add(name)
    assert {"filter-label", "filter-outcome", "filter-text", "list-table", "choose-film", "choose-label", "opacity",
            "protocol", "method", "show-mask", "show-patches", "help-button"} <= reached  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_narrow_windows_and_dark_mode(browser, paged_results, width, scheme):
    page, complaints = open_page(
        browser, paged_results / "report.html", viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 600) == (scheme == "light")
    page.close()
    assert complaints == []


def test_headings_names_and_text_alternatives(page):
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.evaluate("[...document.images].every(image => image.alt.length > 20)")
    choose(page, 0, CHEXPERT.label_of("Airspace Opacity"))
    spoken = page.locator("#film").get_attribute("aria-label")
    assert "Lung Opacity" in spoken and "(Raw) map of the corrected protocol" in spoken
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, select, input')].filter(
        e => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).length"""
    )
    assert unnamed == 0


def test_missing_parts_are_named_on_top(page, paged_results):
    text = page.locator("#missing").inner_text()
    assert (
        "results/EfficientNetB0: no roc_test.csv" in text
        and str(paged_results) not in text
        and "no comparison of the two models" in text
    )


def test_a_case_is_read_by_keys_alone(page):
    """From the list to another film, its method, a patch, the help and back, without a pointer."""
    choose(page, 0, "Edema")
    chosen = state(page, "film"), state(page, "label")
    page.locator("#list-table").focus()
    tab_to(page, "choose-film")
    page.keyboard.press("ArrowDown")
    drawn(page)
    assert state(page, "film") != chosen[0] and state(page, "label") == chosen[1]
    tab_to(page, "patches")
    place = state(page, "patch")
    page.keyboard.press("ArrowLeft" if not place.endswith(",0") else "ArrowRight")
    assert state(page, "patch") != place
    tab_to(page, "method")
    page.keyboard.press("ArrowRight")
    assert state(page, "method") == "scaled"
    tab_to(page, "help-button", back=True)
    page.keyboard.press("Enter")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "help-button"


def tab_to(page, name, *, back=False):
    """Presses Tab until the element of this id or name, or one inside it, has the focus."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate("n => document.activeElement.name === n || !!document.activeElement.closest('#' + n)", name):
            return
    raise AssertionError(f"{name} is not reached by Tab")
