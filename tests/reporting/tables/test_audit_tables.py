"""The audit's tables in the report and on the page, from the files that evalFaithfulness.py writes."""

import pandas as pd
import pytest
from result_files import write_results

import makeReport
from cxr.files import InputError
from cxr.tables import write_csv
from reporting.format import UNDEFINED
from reporting.reading import read_results
from reporting.tables.audit_tables import QUESTION, audit_tables

OF = {"MedicalPatchNet": {"patches": 1.0, "raw": 0.8}, "EfficientNetB0": {"gradcam": 0.55, "cam": 0.4}}


def audit_rows(name: str) -> list[dict]:
    rows = []
    for method, value in {**OF[name], "chance": 0.0}.items():
        for label in ("Edema", "Mean"):
            for metric, fill in (("correlation", "black"), ("correlation", "0.5"), ("top1", "black"), ("energy", "")):
                bounds = {"value": value / 2, "ci_low": value / 2 - 0.01, "ci_high": value / 2 + 0.02}
                if metric == "correlation" and fill == "black":
                    bounds = {"value": value, "ci_low": value - 0.01, "ci_high": value}
                rows.append({"label": label, "metric": metric, "method": method, "fill": fill, **bounds, "note": ""})
    if name == "EfficientNetB0":
        rows.append({"label": "Mean", "metric": "deletion", "method": "", "fill": "", "note": "needs a linear logit"})
    return rows


@pytest.fixture
def results(tmp_path):
    folder = write_results(tmp_path / "results", films=60)
    for name in OF:
        write_csv(folder / name / "faithfulness/faithfulness_test.csv", pd.DataFrame(audit_rows(name)))
    row = {"label": "Mean", "metric": "agreement", "method": "raw", "value": 0.9, "ci_low": 0.8, "ci_high": 0.95}
    write_csv(folder / "MedicalPatchNet/faithfulness/pairs.csv", pd.DataFrame([row | {"pairs": 8, "note": ""}]))
    return folder


def shown(table) -> dict[str, list[str]]:
    """Method -> the cells of its first row."""
    found = {}
    for block in table.blocks:
        for row in block.rows:
            found.setdefault(row[0].text, [cell.text for cell in row[1:]])
    return found


def test_each_network_is_judged_by_its_own_effects(results):
    effects, regions, pairs = audit_tables(read_results(results), "drawn films")
    assert effects.title == QUESTION and effects.columns == ("Method", "Black", "Grey 0.5")
    assert shown(effects) == {
        "Patch evidence†": ["1.000 (0.990–1.000)", "0.500 (0.490–0.520)"],
        "MedicalPatchNet (Raw)": ["0.800 (0.790–0.800)", "0.400 (0.390–0.420)"],
        "Grad-CAM": ["0.550 (0.540–0.550)", "0.275 (0.265–0.295)"],
        "Signed CAM†": ["0.400 (0.390–0.400)", "0.200 (0.190–0.220)"],
        "A map that says nothing": ["0.000 (-0.010 to 0.000)", "0.000 (-0.010 to 0.020)"],
    }
    assert [block.heading.partition(":")[0] for block in effects.blocks] == ["Rank correlation", "Top patch"]
    assert f"{UNDEFINED} timm/x: deletion needs a linear logit." not in effects.notes
    assert any("deletion needs a linear logit." in note for note in effects.notes)
    assert regions.columns == ("Method", "In mask") and shown(regions)["Grad-CAM"] == ["0.275 (0.265–0.295)"]
    assert pairs.columns == ("Method", "Agreement")
    assert shown(pairs) == {"MedicalPatchNet (Raw)": ["0.900 (0.800–0.950)"]}
    assert all("drawn films" in table.caption for table in (effects, regions, pairs))


def test_a_report_has_them_and_its_page_too(results, capsys):
    assert makeReport.main([str(results)]) == 0
    capsys.readouterr()
    for name in ("audit_effects", "audit_regions", "audit_pairs"):
        assert all((results / f"report/{name}.{ending}").is_file() for ending in ("csv", "md", "tex"))
    page = (results / "report/report.html").read_text()
    assert QUESTION in page and "The causal test" in page and "0.800 (0.790–0.800)" in page
    data = pd.read_csv(results / "report/audit_effects.csv")
    assert data[data["method"] == "gradcam"]["value"].tolist()[0] == 0.55


def test_without_an_audit_there_are_none(tmp_path):
    assert audit_tables(read_results(write_results(tmp_path / "results", films=60))) == []


def test_an_audit_without_effects_has_no_table_of_them(results):
    for name in OF:
        path = results / name / "faithfulness/faithfulness_test.csv"
        rows = pd.DataFrame(audit_rows(name))
        write_csv(path, rows[rows["metric"] == "energy"])
    assert [table.name for table in audit_tables(read_results(results))] == ["audit_regions", "audit_pairs"]


def test_a_damaged_file_is_refused_with_its_line(results):
    path = results / "EfficientNetB0/faithfulness/faithfulness_test.csv"
    path.write_text(path.read_text().replace("0.55,", "many,", 1))
    with pytest.raises(InputError, match=r"faithfulness_test.csv, line \d+, value: 'many' is not a number"):
        read_results(results)
