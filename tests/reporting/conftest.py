"""Results folders of many kinds, and the page of one of them in a browser."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

import makeReport
from cxr.files import read_json, write_json
from reporting.format import Block, plain
from reporting.page.page import write_page
from reporting.paper import read_paper
from reporting.reading import read_results
from reporting.tables.paper_tables import table1
from tests.reporting.browser import EVIL, drawn, open_page, running_chromium
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_results


@pytest.fixture(scope="session")
def complete_results(tmp_path_factory):
    """A complete results folder, made once; not to be changed."""
    return write_results(tmp_path_factory.mktemp("complete") / "results", films=60)


@pytest.fixture
def folder(complete_results, tmp_path):
    """A copy of the complete results folder, to take apart."""
    return shutil.copytree(complete_results, tmp_path / "results")


@pytest.fixture(scope="session")
def paged_results(tmp_path_factory):
    """Results with a hostile path, model name and caption, and their page; one picture only, for drawing takes long."""
    folder = write_results(tmp_path_factory.mktemp("page") / "results", films=12)
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


@pytest.fixture(scope="session")
def browser():
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, paged_results):
    page, complaints = open_page(browser, paged_results / "report.html")
    drawn(page)
    yield page
    page.close()
    assert complaints == []
