"""Evaluation without --steps-per-patch: evidence every few pixels, from the network to the page."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from test_chain import FILMS, TASKS, chexlocalize, run, weights  # noqa: F401 - fixtures

import evalClassification
from cxr.labels import CHEXPERT
from makeReport import map_sources
from models.checkpoint import build_model, save_model
from reporting.page.facts import run_facts
from reporting.reading import read_results
from saliency.evidence.evidence_files import read_grids
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source
from saliency.patch_maps import logits_to_unit, maps_from_grid


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_chexpert, chexlocalize, weights):  # noqa: F811
    root = tmp_path_factory.mktemp("results")
    for name in ("patch", "baseline"):
        command = ["--weights", weights / name, "--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--no-pickles"]
        assert run(evalClassification, *command, "--output", root / name, "--resamples", 20, "--workers", 0) == 0
    return root


def test_evidence_is_made_every_three_pixels_and_recorded(results):
    record = json.loads((results / "patch/run.json").read_text())
    assert record["stages"]["heat_maps_test"]["options"] == {"steps_per_patch": 32, "stride": 3}
    facts, grids = read_grids(results / "patch/evidence/test/patient64741_study1_view1_frontal.npz")
    assert facts.stride == 3 and grids["Edema"].shape == (22, 22)
    made = heat_map_source(results / "patch", "corrected", "test", "raw", TASKS)
    found = made.load("patient64741_study1_view1_frontal", "Edema").map
    settings = {"patch_size": 32, "steps_per_patch": 32, "image_size": 64, "protocol": "corrected", "stride": 3}
    of_crop = logits_to_unit(maps_from_grid(torch.from_numpy(grids["Edema"])[None], **settings)["raw"])[0].numpy()
    assert np.array_equal(found[:, 8:72], of_crop)  # the film is 80 x 64


def test_the_estimated_error_of_every_map_is_in_a_table_and_the_record(results):
    table = pd.read_csv(results / "patch/map_errors_test.csv")
    assert len(table) == FILMS * len(TASKS) and set(table["task"]) == set(TASKS) and set(table["stride"]) == {3}
    noted = json.loads((results / "patch/run.json").read_text())["estimated_map_error"]["test"]
    assert noted["mean_percent"] == pytest.approx(table["estimated_error_percent"].mean(), abs=5e-4)
    assert noted["largest_percent"] == pytest.approx(table["estimated_error_percent"].max(), abs=5e-4)
    assert not (results / "baseline/map_errors_test.csv").exists()


def test_maps_and_page_have_the_corrected_protocol_alone(results):
    kinds = EvidenceFolder.kinds(results / "patch/evidence/test")
    assert kinds == [("corrected", method) for method in ("raw", "relative", "scaled")]
    read = read_results(results)
    sources = map_sources(read, results, None)
    maps = sources.maps
    assert {method for protocol, method in maps if protocol == "corrected"} >= {"raw", "relative", "scaled", "gradcam"}
    assert {method for protocol, method in maps if protocol == "published"} == {"gradcam", "gradcam++", "eigencam"}
    assert "published maps need every start, not every 3 px" in sources.missing[0]
    words = run_facts(read.patch).facts["evidence of the heat maps"]
    assert re.fullmatch(r"every 3 pixels, linear in between; estimated error [\d.]+% of a map's range", words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stride", 5], "made with other settings (stride: 3, now 5)"),
        (["--stride", 1], "made with other settings (stride: 3, now none)"),
        (["--steps-per-patch", 4], "made with other settings (steps_per_patch: 32, now 4; stride: 3, now none)"),
        (["--protocols", "published", "--stride", 3], "published maps need every start, not every 3 px"),
        (["--stride", 40], "--stride: a stride of 40 px; possible are 1 to 32"),
    ],
)
def test_another_stride_is_refused(results, tiny_chexpert, chexlocalize, weights, capsys, options, message):  # noqa: F811
    command = ["--weights", weights / "patch", "--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--no-pickles"]
    command += ["--output", results / "patch", "--resamples", 20, "--workers", 0]
    before = {path: path.read_bytes() for path in (results / "patch/evidence").rglob("*.npz")}
    assert run(evalClassification, *command, *options) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (results / "patch/evidence").rglob("*.npz")} == before
    assert run(evalClassification, *command) == 0  # the same again: nothing to do
    assert "0 of them new" in capsys.readouterr().out


def test_class_activation_maps_go_beside_evidence_of_any_stride(results, tiny_chexpert, chexlocalize, weights):  # noqa: F811
    folder = results.with_name("with_cams")
    shutil.copytree(results / "patch", folder, dirs_exist_ok=True)
    before = read_grids(folder / "evidence/test/patient64741_study1_view1_frontal.npz")
    command = ["--weights", weights / "patch", "--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--no-pickles"]
    command += ["--output", folder, "--resamples", 20, "--workers", 0, "--heatmaps", "gradcam"]
    assert run(evalClassification, *command) == 0
    kinds = EvidenceFolder.kinds(folder / "evidence/test")
    assert kinds == [("corrected", method) for method in ("gradcam", "raw", "relative", "scaled")] + [
        ("published", "gradcam")
    ]
    facts, grids = read_grids(folder / "evidence/test/patient64741_study1_view1_frontal.npz")
    assert facts == before[0] and all(np.array_equal(grids[task], before[1][task]) for task in TASKS)


def test_a_baseline_of_a_size_that_64_does_not_divide_can_be_read(tmp_path, tiny_chexpert, chexlocalize):  # noqa: F811
    save_model(build_model("timm/test_efficientnet", patch_size=48, image_size=48, labels=CHEXPERT.names), tmp_path)
    command = ["--weights", tmp_path, "--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--no-pickles"]
    command += ["--output", tmp_path / "results", "--resamples", 20, "--workers", 0]
    assert run(evalClassification, *command) == 0
    maps = heat_map_source(tmp_path / "results", "corrected", "test", "gradcam", TASKS)
    assert maps.load("patient64741_study1_view1_frontal", "Edema").map.shape == (48, 60)  # the film is 80 x 64


def test_stride_and_steps_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        run(evalClassification, "--weights", "hf://a/b", "--data", "d", "--stride", 3, "--steps-per-patch", 8)
    assert "not allowed with argument" in capsys.readouterr().err
