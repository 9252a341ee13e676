"""The case viewer in Debian's Chromium: what it draws is what the files say, and every control changes it."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.labels import CHEXPERT
from cxr.paths import film_id
from reporting.pictures.overlays import SIGNED, evidence_scale
from saliency.evidence.evidence_folders import EvidenceFolder
from tests.reporting.browser import choose, pixels, state, until

PATCHES = 4


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
def test_colours_are_those_of_the_stored_map_in_its_place(page, paged_results, method, film):
    source = EvidenceFolder(
        paged_results / "MedicalPatchNet" / "evidence" / "test",
        method=method,
        protocol="corrected",
        tasks=CHEXPERT.task_names,
    )
    name = film_id(pd.read_csv(paged_results / "MedicalPatchNet" / "predictions_test.csv")["Path"][film])
    heat = source.load(name, "Edema").map
    choose(page, film, "Edema")
    page.locator(f"#methods [value={method}]").check()
    page.locator("#opacity").fill("100")
    page.locator("#fixed-scale").uncheck()
    shown = pixels(page)
    strength = ((heat - 0.5) / evidence_scale(heat))[..., None]
    film_pixels = 255 * source.film_pixels(name)[..., None]
    colour = 255 * np.where(strength < 0, SIGNED(0.08)[:3], SIGNED(0.92)[:3])
    expected = np.abs(strength) * colour + (1 - np.abs(strength)) * film_pixels
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
    page.locator("#opacity").fill("100")
    small = [pixels(page, f"#methods label:nth-child({place}) canvas") for place in range(1, 6)]
    assert all(np.abs(a - b).max() > 5 for i, a in enumerate(small) for b in small[:i])
    for place, method in enumerate(["raw", "scaled", "gradcam", "gradcam++", "eigencam"]):
        page.keyboard.press(str(place + 1))
        assert state(page, "method") == method
        np.testing.assert_array_equal(pixels(page), small[place])
        assert ("CAM" in page.locator("#scale-text").inner_text()) == (place > 1)


def test_mask_is_outlined_where_it_lies(page, paged_results):
    masks = pd.read_json(paged_results / "gt_segmentations_test.json", typ="series")
    page.locator("#filter-outcome").select_option("TP")
    film, label = page.evaluate("list.rows.find(([f, l]) => content.tasks.includes(content.labels[l]))")
    choose(page, film, CHEXPERT.names[label])
    assert masks.iloc[film][CHEXPERT.task_of(CHEXPERT.names[label])]["counts"]
    assert page.locator("#outline .over").get_attribute("d").startswith("M")
    page.locator("#show-mask").uncheck()
    assert state(page, "mask") == "false" and page.locator("#outline .over").get_attribute("d") == ""
    page.keyboard.press("m")
    assert state(page, "mask") == "true" and page.locator("#outline .over").get_attribute("d") != ""


def patch_logits(paged_results, film, label):
    """(4, 4) off the evidence grid: patches that start at whole multiples of their size."""
    name = film_id(pd.read_csv(paged_results / "MedicalPatchNet" / "predictions_test.csv")["Path"][film])
    with np.load(paged_results / "MedicalPatchNet" / "evidence" / "test" / f"{name}.npz") as content:
        grid = content[f"grid {CHEXPERT.task_of(label)}"]
    steps = len(grid) // PATCHES
    starts = (np.arange(len(grid)) - steps // 2) / steps  # in patches from the film's first pixel
    whole = np.flatnonzero(starts % 1 == 0)
    return grid[np.ix_(whole, whole)].astype(float)


def test_patches_by_pointer_and_by_arrow_keys(page, paged_results):
    choose(page, 1, "Edema")
    logits = patch_logits(paged_results, 1, "Edema")
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


def test_for_against_sum_and_probability(page, paged_results):
    choose(page, 2, "Cardiomegaly")
    shares = patch_logits(paged_results, 2, "Cardiomegaly") / PATCHES**2
    logit = shares.sum()
    text = page.locator("#sum-text").inner_text().replace("−", "-")
    found = [float(value) for value in re.findall(r"[-+]?\d+\.\d+", text)]
    assert found == pytest.approx(
        [shares[shares > 0].sum(), shares[shares < 0].sum(), logit, 1 / (1 + np.exp(-logit))], abs=0.006
    )
    choose(page, 2, "Fracture")  # a label without maps
    assert "evalClassification.py --all-labels" in page.locator("#scale-text").inner_text()
    assert page.locator("#sum-text").count() == 0 and "not known here" in page.locator("#sum").inner_text()


def test_film_and_readout_are_seen_together_on_a_small_laptop(page):
    page.set_viewport_size({"width": 1366, "height": 768})
    for film in (0, 1, 2):  # wide, tall, square
        choose(page, film, "Edema")
        page.locator("#cases").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('cases').scrollIntoView()")
        for selector in ("#film", "#patch-readout", "#sum-text"):
            box = page.locator(selector).bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 768, selector
            assert box["x"] >= 0 and box["x"] + box["width"] <= 1366, selector
        film_box = page.locator("#film").bounding_box()
        assert film_box["height"] >= 450 or film_box["width"] >= 600


def test_one_scale_for_all_films_and_own_scales(page):
    """Full colour of the fixed scale is the median of the films' largest logits; the legend says which it is."""
    choose(page, 0, "Edema")
    fixed = page.evaluate("content.fullColour['corrected raw']['Edema']")
    own = page.evaluate(
        """[...pictured].map((film) => mapOf(picturesOf(film), "corrected", "raw", content.labels.indexOf("Edema")))
        .filter(Boolean).map((map) => map.logit)"""
    )
    assert fixed == pytest.approx(np.median(own), rel=0.01)
    assert f"±{fixed:g} on every film" in page.locator("#scale-text").inner_text()
    page.locator("#fixed-scale").uncheck()
    assert "the largest of this map" in page.locator("#scale-text").inner_text()
    assert (
        page.locator("#ticks span").all_inner_texts()[2]
        == f"+{page.evaluate('fullLogit(mapOf(picturesOf(state.film), state.protocol, state.method, state.label))'):g}"
    )


def test_maximum_and_threshold_of_the_map(page, paged_results):
    choose(page, 0, "Edema")
    x, y = page.evaluate("mapOf(picturesOf(0), 'corrected', 'raw', content.labels.indexOf('Edema')).maximum")
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", page.locator("#outline .maximum").get_attribute("d"))]
    assert numbers[:3] == pytest.approx([x - 14, y, x + 14], abs=0.1)
    source = EvidenceFolder(
        paged_results / "MedicalPatchNet" / "evidence" / "test", method="raw", protocol="corrected",
        tasks=CHEXPERT.task_names,
    )  # fmt: skip
    heat = source.load(
        film_id(pd.read_csv(paged_results / "MedicalPatchNet" / "predictions_test.csv")["Path"][0]), "Edema"
    )
    row, column = np.unravel_index(heat.map.argmax(), heat.map.shape)
    assert (x, y) == pytest.approx(
        ((column + 0.5) / heat.map.shape[1] * 1000, (row + 0.5) / heat.map.shape[0] * 1000), abs=25
    )
    page.evaluate("content.cuts['corrected raw'] = {Edema: 0.5}; change({});")
    drawn_cut = page.locator("#outline .cut").get_attribute("d")
    assert drawn_cut.startswith("M")
    above = (heat.map - heat.map.min()) / (heat.map.max() - heat.map.min()) > 0.5
    xs = [float(pair.split()[0]) for pair in re.findall(r"[ML]([\d.]+ [\d.]+)", drawn_cut)]
    columns = np.flatnonzero(above.any(axis=0))
    assert min(xs) == pytest.approx(1000 * columns[0] / above.shape[1], abs=30)
    assert max(xs) == pytest.approx(1000 * (columns[-1] + 1) / above.shape[1], abs=30)
    page.keyboard.press("t")
    assert state(page, "marks") == "false" and page.locator("#outline .maximum").get_attribute("d") == ""


def test_zoom_window_and_reset(page):
    choose(page, 0, "Edema")
    page.locator("#opacity").fill("0")
    before, size = pixels(page), page.locator("#film").bounding_box()["width"]
    page.keyboard.press("z")
    assert state(page, "zoom") == "1.5"
    assert page.locator("#film").bounding_box()["width"] == pytest.approx(1.5 * size, rel=0.01)
    page.locator("#window").fill("50")
    narrow = pixels(page)
    expected = np.clip((before - 255 * 0.25) / 0.5, 0, 255)  # from a quarter to three quarters of the grey values
    assert np.abs(narrow - expected).mean() < 3
    page.locator("#reset").click()
    np.testing.assert_array_equal(pixels(page), before)
    assert state(page, "zoom") == "1"


def test_two_methods_beside_each_other_share_the_cursor(page):
    choose(page, 0, "Edema")
    page.locator("#beside").select_option("gradcam")
    left, right = pixels(page), pixels(page, "#film-beside")
    assert left.shape == right.shape and np.abs(left - right).max() > 20
    assert page.locator("#film-beside").get_attribute("aria-label") == "Grad-CAM"
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    cursor, other = (page.locator(f"#stage-beside {part}").bounding_box() for part in (".cursor", "canvas"))
    assert cursor["x"] + cursor["width"] / 2 - other["x"] == pytest.approx(other["width"] / 4, abs=3)
    assert cursor["y"] + cursor["height"] / 2 - other["y"] == pytest.approx(other["height"] / 2, abs=3)


def test_the_case_stands_in_the_address(page):
    choose(page, 2, "Edema")
    address = page.evaluate("location.hash")
    assert "label=Edema" in address and "film=" in address
    page.evaluate("location.hash = new URLSearchParams({film: content.films[1], label: 'Cardiomegaly'})")
    until(page, "document.getElementById('viewer').dataset.label === 'Cardiomegaly'")
    assert state(page, "film") == page.evaluate("content.films[1]")


def test_the_list_and_a_case_can_be_kept(page, tmp_path):
    page.locator("#filter-disagree").check()
    rows = page.evaluate("list.rows.length")
    with page.expect_download() as kept:
        page.locator("#save-list").click()
    kept.value.save_as(tmp_path / "cases.csv")
    table = pd.read_csv(tmp_path / "cases.csv")
    assert len(table) == rows > 0
    outcomes = table.filter(like="outcome").dropna()
    assert (outcomes.iloc[:, 0].str[1] != outcomes.iloc[:, 1].str[1]).all()
    with page.expect_download() as kept:
        page.locator("#save-picture").click()
    assert kept.value.suggested_filename.endswith(".png")
    kept.value.save_as(tmp_path / "case.png")
    with Image.open(tmp_path / "case.png") as picture:
        assert picture.size == (page.evaluate("at('film').width"), page.evaluate("at('film').height") + 56)


def test_arrows_step_through_the_list(page):
    page.evaluate("document.activeElement.blur()")
    first = page.evaluate("list.rows.slice(0, 2)")
    page.evaluate("chooseCase(...list.rows[0])")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("[state.film, state.label]") == first[1]
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("[state.film, state.label]") == first[0]
