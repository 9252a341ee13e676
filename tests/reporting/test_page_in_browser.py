"""The page in Debian's Chromium: opened from disk, every control changes what it should, and it loads nothing."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import makeReport
from chexpert.dataset import image_id
from chexpert.files import read_json, write_json
from chexpert.labels import LABELS, TASKS, label_of, task_of
from reporting.format import Block, plain
from reporting.html import write_page
from reporting.overlays import SIGNED, evidence_scale
from reporting.results import read_paper, read_results
from reporting.tables import table1
from saliency.evidence_files import EvidenceFolder
from tests.reporting.browser import drawn, open_page, running_chromium
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_results

FILMS = 12
PATCHES = 4
EVIL = """<script>alert("1")</script><img src=x onerror='alert(2)'>"""
"""A path may hold it: its last three parts are the film's name, as ever."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results with a hostile path, model name and caption, and their page; one picture only, for drawing takes long."""
    folder = write_results(tmp_path_factory.mktemp("page") / "results", films=FILMS)
    masks = write_case_files(folder)
    for path in folder.glob("*/predictions_test.csv"):
        table = pd.read_csv(path)
        table.loc[0, "Path"] = EVIL + "/" + table.loc[0, "Path"]
        table.to_csv(path, index=False)
    record = folder / "MedicalPatchNet" / "run.json"
    write_json(record, read_json(record) | {"command": EVIL})
    (folder / "EfficientNetB0" / "roc_test.csv").unlink()
    read = read_results(folder)
    picture = folder / "figure1.png"
    Image.new("L", (60, 40), 255).save(picture)
    table = replace(table1(read, read_paper(), EVIL), blocks=(Block(EVIL, (plain(EVIL, EVIL),)),), name="hostile")
    sources = makeReport.map_sources(read, folder, masks)
    write_page(folder / "report.html", read, tables=[table], pictures=[picture], sources=sources, dataset=EVIL)
    return folder


@pytest.fixture(scope="module")
def browser():
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, results):
    page, complaints = open_page(browser, results / "report.html")
    drawn(page)
    yield page
    page.close()
    assert complaints == []


@pytest.fixture(scope="module")
def predictions(results):
    """One row per film and label: what the list should hold."""
    table = pd.read_csv(results / "MedicalPatchNet" / "predictions_test.csv")
    rows = [
        (image_id(film.Path), label, film[f"prob {label}"], film[f"label {label}"])
        for _, film in table.iterrows()
        for label in LABELS
    ]
    cases = pd.DataFrame(rows, columns=["film", "label", "p", "truth"])
    called = cases["p"] >= 0.4
    cases["outcome"] = np.select(
        [called & (cases["truth"] == 1), called, cases["truth"] == 1], ["TP", "FP", "FN"], "TN"
    )
    return cases


def state(page, name):
    return page.locator("#viewer").get_attribute(f"data-{name}")


def pixels(page, selector="#film"):
    """(h, w, 3) int of a canvas."""
    drawn(page)
    uri = page.evaluate("selector => document.querySelector(selector).toDataURL()", selector)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def choose(page, film, label):
    page.locator("#choose-film").select_option(str(film))
    page.locator("#choose-label").select_option(str(LABELS.index(label)))
    drawn(page)


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


def test_the_page_s_policy_forbids_what_it_does_not_hold(browser, results):
    page, complaints = open_page(browser, results / "report.html")
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in complaints)
    page.close()


def test_slider_mixes_film_and_colours(page):
    choose(page, 0, "Edema")
    shown = {}
    for value in ("0", "50", "100"):
        page.locator("#opacity").fill(value)
        assert state(page, "opacity") == value
        shown[value] = pixels(page)
    spread = np.ptp(shown["0"], axis=-1)
    assert spread.max() == 0  # a grey film
    np.testing.assert_allclose(shown["50"], (shown["0"] + shown["100"]) / 2, atol=2)
    assert np.ptp(shown["100"], axis=-1).max() > 40


@pytest.mark.parametrize("film", [0, 1])  # a wide one and a tall one
@pytest.mark.parametrize("method", ["raw", "scaled"])
def test_colours_are_those_of_the_stored_map_in_its_place(page, results, method, film):
    source = EvidenceFolder(
        results / "MedicalPatchNet" / "evidence" / "test", method=method, protocol="corrected", tasks=TASKS
    )
    name = image_id(pd.read_csv(results / "MedicalPatchNet" / "predictions_test.csv")["Path"][film])
    heat = source.load(name, "Edema").map
    choose(page, film, "Edema")
    page.locator(f"#methods [value={method}]").check()
    page.locator("#opacity").fill("100")
    shown = pixels(page)
    expected = 255 * SIGNED(0.5 + (heat - 0.5) / (2 * evidence_scale(heat)))[..., :3]
    y, x = (
        np.rint((np.arange(n) + 0.5) * m / n - 0.5).astype(int) for n, m in zip(heat.shape, shown.shape, strict=False)
    )
    crop = slice(None), slice((heat.shape[1] - min(heat.shape)) // 2, (heat.shape[1] + min(heat.shape)) // 2)
    if film == 1:
        crop = slice((heat.shape[0] - min(heat.shape)) // 2, (heat.shape[0] + min(heat.shape)) // 2), slice(None)
    error = np.abs(shown[np.ix_(y, x)] - expected)[crop]
    assert np.median(error) < 3 and error.mean() < 8  # blocks of 4 pixels with soft edges


def test_protocol_stretches_the_map_over_the_film(page):
    choose(page, 0, "Edema")
    page.locator("#opacity").fill("100")
    corrected = pixels(page)
    page.locator("#protocols [value=published]").check()
    assert state(page, "protocol") == "published"
    published = pixels(page)
    beside = slice(None), slice(0, corrected.shape[1] // 12)  # the film is wide: the networks do not see its sides
    assert np.ptp(corrected[beside], axis=-1).max() == 0 and np.ptp(published[beside], axis=-1).max() > 10
    assert "stretched" in page.locator("#frame-note").inner_text()


def test_methods_side_by_side_and_one_large(page):
    choose(page, 0, "Edema")
    small = [pixels(page, f"#methods label:nth-child({place}) canvas") for place in range(1, 6)]
    assert all(np.abs(a - b).max() > 5 for i, a in enumerate(small) for b in small[:i])
    for place, method in enumerate(["raw", "scaled", "gradcam", "gradcam++", "eigencam"]):
        page.keyboard.press(str(place + 1))
        assert state(page, "method") == method
        np.testing.assert_array_equal(pixels(page), small[place])
        assert ("CAM" in page.locator("#scale-text").inner_text()) == (place > 1)


def test_mask_is_outlined_where_it_lies(page, results):
    masks = pd.read_json(results / "gt_segmentations_test.json", typ="series")
    page.locator("#filter-outcome").select_option("TP")
    film, label = page.evaluate("list.rows.find(([f, l]) => content.tasks.includes(content.labels[l]))")
    choose(page, film, LABELS[label])
    assert masks.iloc[film][task_of(LABELS[label])]["counts"]
    assert page.locator("#outline .over").get_attribute("d").startswith("M")
    page.locator("#show-mask").uncheck()
    assert state(page, "mask") == "false" and page.locator("#outline .over").get_attribute("d") == ""
    page.keyboard.press("m")
    assert state(page, "mask") == "true" and page.locator("#outline .over").get_attribute("d") != ""


def patch_logits(results, film, label):
    """(4, 4) off the evidence grid: patches that start at whole multiples of their size."""
    name = image_id(pd.read_csv(results / "MedicalPatchNet" / "predictions_test.csv")["Path"][film])
    with np.load(results / "MedicalPatchNet" / "evidence" / "test" / f"{name}.npz") as content:
        grid = content[f"grid {task_of(label)}"]
    steps = len(grid) // PATCHES
    starts = (np.arange(len(grid)) - steps // 2) / steps  # in patches from the film's first pixel
    whole = np.flatnonzero(starts % 1 == 0)
    return grid[np.ix_(whole, whole)].astype(float)


def test_patches_by_pointer_and_by_arrow_keys(page, results):
    choose(page, 1, "Edema")
    logits = patch_logits(results, 1, "Edema")
    assert page.locator("#patches button").count() == PATCHES**2
    page.locator("#patches [data-place='2,1']").hover()
    assert state(page, "patch") == "2,1"
    readout = page.locator("#patch-readout")
    assert f"{logits[2, 1] / PATCHES**2:+.4f}".replace("-", "−") in readout.inner_text()
    page.locator("#patches [data-place='2,1']").focus()
    for key, place in (("ArrowRight", "2,2"), ("ArrowUp", "1,2"), ("ArrowLeft", "1,1"), ("ArrowDown", "2,1")):
        page.keyboard.press(key)
        row, column = map(int, place.split(","))
        assert state(page, "patch") == place
        assert page.evaluate("document.activeElement.dataset.place") == place
        assert f"logit {logits[row, column]:+.2f}".replace("-", "−") in readout.inner_text()
    for _ in range(PATCHES):
        page.keyboard.press("ArrowLeft")
    assert state(page, "patch") == "2,0"
    page.keyboard.press("m")  # redraws; the patch keeps the focus
    assert page.evaluate("document.activeElement.dataset.place") == "2,0"


def test_patches_lie_over_the_square_that_the_network_sees(page):
    choose(page, 0, "Edema")  # 1.25 times as wide as high
    frame, square = (page.locator(selector).bounding_box() for selector in ("#film", "#patches"))
    assert square["height"] == pytest.approx(frame["height"], abs=1)
    assert square["width"] == pytest.approx(frame["height"], abs=2)
    assert square["x"] - frame["x"] == pytest.approx((frame["width"] - square["width"]) / 2, abs=2)


def test_for_against_sum_and_probability(page, results):
    choose(page, 2, "Cardiomegaly")
    shares = patch_logits(results, 2, "Cardiomegaly") / PATCHES**2
    logit = shares.sum()
    text = page.locator("#sum-text").inner_text().replace("−", "-")
    found = [float(value) for value in re.findall(r"[-+]?\d+\.\d+", text)]
    assert found == pytest.approx(
        [shares[shares > 0].sum(), shares[shares < 0].sum(), logit, 1 / (1 + np.exp(-logit))], abs=0.006
    )
    choose(page, 2, "Fracture")  # a label without maps
    assert page.locator("#sum-text").count() == 0 and "not known here" in page.locator("#sum").inner_text()


def test_prediction_against_truth(page, predictions):
    names = {"TP": "true positive", "FP": "false positive", "FN": "false negative", "TN": "true negative"}
    for place in range(0, len(predictions), 41):
        case = predictions.iloc[place]
        choose(page, place // len(LABELS), case["label"])
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
    page.locator("#filter-label").select_option(str(LABELS.index("Edema")))
    assert count(page) == FILMS and set(column(page, 2)) == {"Edema"}
    page.locator("#filter-label").select_option("")
    page.locator("#filter-text").fill("64743 lung")
    chosen = predictions["film"].str.contains("64743") & predictions["label"].str.contains("Lung")
    assert count(page) == chosen.sum() == 2
    page.locator("#filter-text").fill("nothing like this")
    assert count(page) == 0


@pytest.mark.parametrize(("place", "key"), [(1, "film"), (2, "label"), (3, "p"), (5, "outcome")])
def test_sorting_both_ways(page, predictions, place, key):
    button = page.locator(f"#list-head th:nth-child({place}) button")
    for _ in range(2):
        button.click()
        order = page.locator(f"#list-head th:nth-child({place})").get_attribute("aria-sort")
        ordered = predictions[key].sort_values(ascending=order == "ascending", kind="stable").to_list()
        shown = column(page, place)
        expected = [f"{v:.3f}" if key == "p" else str(v).removeprefix("patient") for v in ordered[: len(shown)]]
        assert order in ("ascending", "descending") and shown == expected
    assert page.locator("#list-head [aria-sort=none]").count() == 6


def test_hits_come_from_the_method_on_show(page, results):
    scored = pd.read_csv(
        results / "EfficientNetB0" / "localization" / "published" / "gradcam" / "hitmiss_results_per_cxr.csv"
    )
    page.keyboard.press("3")
    page.keyboard.press("p")
    page.locator("#filter-label").select_option(str(LABELS.index("Edema")))
    page.locator("#list-head th:nth-child(1) button").click()
    expected = [{1.0: "hit", 0.0: "miss"}.get(value, "–") for value in scored["Edema"]]
    assert column(page, 6) == expected and {"hit", "–"} <= set(expected)


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
    for key, name, value in (("p", "protocol", "published"), ("g", "patches", "false"), ("+", "opacity", "60"),
                             ("-", "opacity", "50"), ("5", "method", "eigencam")):  # fmt: skip
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
def test_narrow_windows_and_dark_mode(browser, results, width, scheme):
    page, complaints = open_page(
        browser, results / "report.html", viewport={"width": width, "height": 900}, color_scheme=scheme
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
    choose(page, 0, label_of("Airspace Opacity"))
    spoken = page.locator("#film").get_attribute("aria-label")
    assert "Lung Opacity" in spoken and "(Raw) map of the corrected protocol" in spoken
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, select, input')].filter(
        e => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).length"""
    )
    assert unnamed == 0


def test_missing_parts_are_named_on_top(page, results):
    text = page.locator("#missing").inner_text()
    assert f"{results / 'EfficientNetB0'}: no roc_test.csv" in text and "no comparison of the two models" in text
