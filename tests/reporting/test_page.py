"""The page without a browser: differences to the paper, what is missing, its size, its colours, and what it escapes."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import makeReport
from cxr.files import InputError, write_json
from cxr.labels import CHEXPERT
from reporting.page import page as page_module
from reporting.page.case_list import read_case_list
from reporting.page.case_viewer import _json
from reporting.page.facts import data_counts, run_facts
from reporting.page.page import write_page
from reporting.page.tables import beside_paper, localization_tables
from reporting.paper import read_paper
from reporting.reading import read_results
from reporting.tables.label_tables import table1_per_label
from reporting.tables.localization_tables import table2, table3
from reporting.tables.paper_tables import table1
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_measure

PAPER = read_paper()


class Text(HTMLParser):
    """The text of a page, and the elements that carry it."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags, self.blocks, self.stack = [], [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.stack.append((tag, dict(attrs).get("id")))

    def handle_data(self, data):
        tag, name = self.stack[-1] if self.stack else ("", None)
        if tag == "script":
            self.blocks.setdefault(name, data)
        elif tag != "style":
            self.texts.append(data)


def page_of(folder, sources=None, **options):
    results, sources = read_results(folder), sources or makeReport.map_sources(read_results(folder), folder, None)
    missing = write_page(folder / "report.html", results, tables=[], pictures=[], sources=sources, **options)
    return Text((folder / "report.html").read_text()), missing


def cells(table, block, row):
    (found,) = [cells for cells in table.blocks[block].rows if cells[0].text == row]
    return [cell.text for cell in found[1:]]


class TestBesideThePaper:
    def test_table_1_subtracts_the_paper_s_model_of_the_same_role(self, folder):
        results = read_results(folder)
        table = beside_paper(table1(results, PAPER), results, PAPER)
        ours = results.baseline.scores.get("Mean (14)", "accuracy", "youden").value
        theirs = PAPER.mean("baseline", "accuracy", CHEXPERT.names)
        shown = cells(table, 2, "EfficientNet-B0")[table.columns.index("Accuracy (All)") - 1]
        assert shown == f"{ours - theirs:+.3f}" and table.blocks[2].heading == "This run − paper"
        both = [model.scores.get("Mean (14)", "accuracy", "youden").value for model in results.models]
        difference = both[0] - both[1] - PAPER.mean("difference", "accuracy", CHEXPERT.names)
        assert cells(table, 2, "Difference")[3] == f"{difference:+.3f}"

    def test_a_model_alone(self, folder):
        (folder / "EfficientNetB0" / "classification_test.csv").unlink()
        results = read_results(folder)
        table = beside_paper(table1(results, PAPER), results, PAPER)
        assert [row[0].text for row in table.blocks[2].rows] == ["MedicalPatchNet"]
        assert beside_paper(table1_per_label(results, PAPER), results, PAPER).columns[-1] == "MedicalPatchNet − paper"

    def test_per_label_in_columns(self, folder):
        results = read_results(folder)
        table = beside_paper(table1_per_label(results, PAPER), results, PAPER)
        assert table.columns[-2:] == ("MedicalPatchNet − paper", "EfficientNet-B0 − paper")
        ours = results.baseline.scores.get("Edema", "auroc", "-").value
        (row,) = [row for row in table.blocks[0].rows if row[0].text == "Edema (*)"]
        assert row[-1].text == f"{ours - PAPER.auroc('baseline', 'Edema'):+.3f}"
        (sensitivity,) = [row for row in table.blocks[2].rows if row[0].text == "Edema (*)"]
        assert sensitivity[-1].text == "–"  # the paper gives means only

    @pytest.mark.parametrize("make", [table2, table3])
    def test_localization_tables(self, folder, make):
        results = read_results(folder)
        table = beside_paper(make(results, "published", PAPER), results, PAPER)
        ours, theirs, difference = (block.rows for block in table.blocks)
        for row in range(len(ours)):
            for place in range(1, len(table.columns)):
                expected = float(ours[row][place].text) - float(theirs[row][place].text)
                assert float(difference[row][place].text) == pytest.approx(expected, abs=0.0011)

    def test_other_tables_stay_as_they_are(self, folder):
        results = read_results(folder)
        (first, _) = localization_tables(results)
        assert beside_paper(first, results, PAPER) is first


def test_localization_with_intervals_and_film_counts(folder):
    place = folder / "MedicalPatchNet" / "localization" / "corrected" / "raw"
    values = {task: [1.0, 0.0, np.nan, 1.0] for task in ("Edema",)}
    films = pd.read_csv(place / "hitmiss_results_per_cxr.csv").drop(columns="img_id").head(4) * np.nan
    write_measure(place, "hitmiss", films.assign(**values))
    results = read_results(folder)
    table = localization_tables(results)[0]
    estimate = results.scored("corrected", "hit rate")["raw"].tasks["Edema"]
    (row,) = [row for row in table.blocks[0].rows if row[0].text.startswith("Edema")]
    raw = table.columns.index("MedicalPatchNet (Raw)")
    assert row[raw].text == f"0.667 ({estimate.low:.3f}–{estimate.high:.3f})"
    assert "3, 20 films" in row[0].text  # the other methods were scored on 20
    assert "\n".join(cell.text for row in table.blocks[2].rows for cell in row).count("(") >= 40


class TestFacts:
    def test_what_is_recorded(self, folder):
        record = {
            "command": "python evalClassification.py --weights '<w>'", "seed": 3, "device": "cpu (x86_64)", "cores": 2,
            "versions": {"python": "3.11.7", "torch": "2.15.0"}, "weights": {"path": "w", "sha256": "ab12"},
            "model": {"backbone": "efficientnet_b0", "patch_size": 64, "image_size": 512},
            "data": {"test": {"films": 60, "positives": {"Edema": 12}}},
            "stages": {"predictions_test": {"seconds": 1234.5}, "statistics": {}},
            "additivity": {"test": {"films": 8, "max_error": 1.31e-6}},
        }  # fmt: skip
        write_json(folder / "MedicalPatchNet" / "run.json", record)
        results = read_results(folder)
        facts = run_facts(results.patch)
        assert facts.facts["seed"] == "3" and facts.facts["sha256 of the weights"] == "ab12"
        assert facts.facts["versions"] == "python 3.11.7, torch 2.15.0" and facts.facts["command"].endswith("'<w>'")
        assert facts.facts["image and patch size"] == "512 x 512 pixels, patches of 64 x 64"
        assert facts.seconds == {"predictions_test": "1,234.5"}
        assert facts.additivity == ("largest |logit from the patches alone − logit| over 8 test films: 1.3e-06",)
        columns, rows = data_counts(results)
        assert columns == ("Films", "test") and rows[0] == ["all films", "60"]
        assert ["Edema, positive", "12"] in rows and ["Fracture, positive", "–"] in rows

    @pytest.mark.parametrize(
        ("options", "errors", "words"),
        [
            ({"steps_per_patch": 64}, {}, "64 steps per patch"),
            ({"steps_per_patch": 64, "stride": 3}, {}, "every 3 pixels, linear in between"),
            (
                {"steps_per_patch": 64, "stride": 3},
                {"test": {"mean_percent": 0.152}},
                "every 3 pixels, linear in between; estimated error 0.15% of a map's range",
            ),
            (
                {"steps_per_patch": 64, "stride": 3},
                {"test": {"mean_percent": None}},
                "every 3 pixels, linear in between",
            ),
        ],
    )
    def test_how_finely_the_evidence_was_computed(self, folder, options, errors, words):
        record = {"stages": {"heat_maps_test": {"options": options}}, "estimated_map_error": errors}
        write_json(folder / "MedicalPatchNet" / "run.json", record | {"model": {"patch_size": 64, "image_size": 512}})
        assert run_facts(read_results(folder).patch).facts["evidence of the heat maps"] == words

    @pytest.mark.parametrize("record", [
        {}, {"stages": [], "additivity": {"test": 3}, "data": None, "model": 4},
        {"stages": {"x": 3, "y": {"seconds": "long"}}, "additivity": {"test": {"max_error": "none"}}},
    ])  # fmt: skip
    def test_what_is_not_is_left_out(self, folder, record):
        write_json(folder / "MedicalPatchNet" / "run.json", record)
        facts = run_facts(read_results(folder).patch)
        assert (facts.facts, facts.seconds, facts.additivity) == ({}, {}, ())


def test_a_folder_with_parts_missing_says_so(folder):
    patch, baseline = folder / "MedicalPatchNet", folder / "EfficientNetB0"
    (patch / "roc_test.csv").unlink()
    (baseline / "predictions_test.csv").unlink()
    (patch / "localization/corrected/raw/iou_results_per_cxr.csv").unlink()
    page, missing = page_of(folder)
    for part in (
        "results/MedicalPatchNet: no roc_test.csv",
        "no iou results (TP only) of raw",
        "thresholds.json: missing",
        "results/EfficientNetB0/predictions_test.csv: missing",
        "give CheXlocalize's gt_segmentations_test.json",
        "maps of the cases: results/MedicalPatchNet/evidence/test: no evidence",
        "contributions of the patches",
        "There are no heat maps of these films",
        "no scaled/miou_curve.png, scaled/tp_fp_fn/miou_curve.png, raw/tp_fp_fn",
    ):
        assert any(part in text for text in page.texts), part
    assert not set(missing) & set(read_results(folder).missing)
    models = json.loads(page.blocks["list-content"])["models"]
    assert [model["name"] for model in models] == ["MedicalPatchNet"] and models[0]["threshold"] == [None] * 14


def test_without_predictions_there_is_no_viewer(folder):
    for path in folder.glob("*/predictions_test.csv"):
        path.unlink()
    page, missing = page_of(folder)
    assert "canvas" not in page.tags and any("so no cases" in line for line in missing)


def test_films_of_the_other_model_are_matched_by_path(folder):
    path = folder / "EfficientNetB0" / "predictions_test.csv"
    table = pd.read_csv(path)
    table.iloc[::-1].iloc[1:].to_csv(path, index=False)
    cases = read_case_list(read_results(folder))
    np.testing.assert_allclose(cases.probabilities["EfficientNet-B0"][:-1, 0], table["prob No Finding"][:-1])
    assert np.isnan(cases.probabilities["EfficientNet-B0"][-1]).all()


def test_damaged_thresholds_are_one_line(folder):
    write_json(folder / "MedicalPatchNet" / "thresholds.json", {"Edema": {"threshold": "high"}})
    with pytest.raises(InputError, match=r"thresholds\.json, Edema: threshold 'high' is not a probability"):
        page_of(folder)
    assert not (folder / "report.html").exists()


def test_pictures_stop_where_the_page_is_full(folder, monkeypatch):
    masks = write_case_files(folder, image_size=32, patch_size=8, steps_per_patch=2)
    sources = makeReport.map_sources(read_results(folder), folder, masks)
    monkeypatch.setattr(page_module, "PAGE_BYTES", 600_000)
    page, _ = page_of(folder, sources)
    films = [name for name in page.blocks if name and name.startswith("film-")]
    listed = json.loads(page.blocks["list-content"])
    assert 0 < len(films) < len(listed["films"]) == 60
    assert (folder / "report.html").stat().st_size < 700_000
    (note,) = [text for text in page.texts if "chosen by rule" in text]
    assert note.startswith(f"{len(films)} of the 60 films with heat maps have their pictures")


def test_nothing_in_a_json_block_can_end_it():
    text = _json({"a": "</script><!--<b>&amp;\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"a": "</script><!--<b>&amp;\u2028"}


def luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_wcag_s_contrast_in_light_and_dark():
    style = (page_module._TEMPLATES / "style.css").read_text()
    for colours in re.findall(r":root \{([^}]*--text.*?)\}", style, re.DOTALL):
        named = dict(re.findall(r"--([\w-]+): (#\w{6});", colours))
        for text in ("text", "soft", "accent", "warn", "for", "against"):
            for ground in ("page", "card", "chosen"):
                light, dark = sorted((luminance(named[text]), luminance(named[ground])), reverse=True)
                if (text, ground) not in {("warn", "chosen"), ("for", "chosen"), ("against", "chosen")}:  # never meet
                    assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_the_page_asks_for_nothing(folder):
    page, _ = page_of(folder, dataset="50% <b>")
    text = (folder / "report.html").read_text()
    assert "default-src &#39;none&#39;" in text and "50% <b>" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    assert "b" not in page.tags
