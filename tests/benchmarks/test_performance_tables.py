"""Every table and measured sentence of docs/performance.md and of the README is what benchmarks/results say."""

import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import tables
from benchmarks.tables import RESULTS, SENTENCES, TABLES, markdown, rounded, span

ROOT = Path(__file__).resolve().parents[2]
PAGE, README = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/performance.md", "README.md"))


def words(text: str) -> str:
    """On one line, without the signs of a list."""
    return re.sub(r"\s+", " ", re.sub(r"^- ", "", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_each_table_as_the_results_make_it(name):
    assert "\n".join(TABLES[name]()) in PAGE


def test_the_page_has_no_other_rows():
    made = {line for table in TABLES.values() for line in table()}
    assert [line for line in PAGE.splitlines() if line.startswith("|") and line not in made] == []


@pytest.mark.parametrize("name", SENTENCES)
def test_the_page_says_each_sentence_as_the_results_make_it(name):
    assert all(sentence in words(PAGE) for sentence in SENTENCES[name]())


def test_the_readme_says_what_the_chain_costs():
    assert all(sentence in words(README) for sentence in SENTENCES["chain"]())


def test_no_other_number_with_a_unit_stands_in_the_page():
    """What is measured has a file of results; settings (px, steps, labels) and numbers of films are no measurements."""
    text = words(re.sub(r"^\|.*$", "", PAGE, flags=re.MULTILINE))
    for sentence in [sentence for made in SENTENCES.values() for sentence in made()]:
        text = text.replace(sentence, "")
    units = r"(?:s|ms|seconds|minutes|h|hours|days|MB|GB|MiB|GiB|%|times)"
    assert re.findall(rf"\d[\d.,]* {units}\b|\d%", text) == []


def test_a_ratio_is_the_quotient_of_its_row():
    """The tables' own columns, read back: the published way over ours, to the digits that are shown."""
    checked = 0
    for line in TABLES["against the published way"]()[2:]:
        published, ours, ratio = (cell.strip().replace(",", "") for cell in line.strip("|").split("|")[1:4])
        if " to " not in line:
            assert float(ratio) == pytest.approx(float(published) / float(ours), rel=0.06), line
            checked += 1
    assert checked >= 8


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0, 2, "0"), (2297.2, 3, "2,300"), (0.00111, 2, "0.0011"), (0.996, 2, "1.0"), (9.96, 2, "10"), (42.87, 3, "42.9")],
)
def test_numbers_are_rounded_to_significant_digits(value, digits, text):
    assert rounded(value, digits) == text


def test_a_span_is_one_number_where_its_ends_are_written_alike():
    assert span(pd.Series([1.02, 1.04]), 2) == "1.0" and span([3, 2], 1) == "2 to 3"


def test_lines_of_a_table():
    assert markdown(("a", "b"), [("x", "1")]) == ["| a | b |", "|---|---:|", "| x | 1 |"]


def test_another_result_changes_the_table(tmp_path, monkeypatch):
    table = pd.read_csv(RESULTS / "bench_steps.csv")
    table.loc[0, "cpu_seconds"] = 123.0
    table.to_csv(tmp_path / "bench_steps.csv", index=False)
    before = TABLES["fineness"]()
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    after = TABLES["fineness"]()
    assert after[2].endswith("| 120 |") and after[3:] == before[3:] and after[2] != before[2]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_file_of_results_is_a_table_without_broken_lines(path):
    table = pd.read_csv(path)
    assert len(table) and not path.read_text(encoding="utf-8").count('"') % 2
    assert len(table) == path.read_text(encoding="utf-8").count("\n") - 1  # no cell runs on over a line's end
