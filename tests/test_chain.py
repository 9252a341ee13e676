"""The scripts after training, one after the other, on noise films: evaluation, heat maps, localization, report."""

import json
import shutil

import pandas as pd
import pytest
import torch

import cli
import evalClassification
import evalLocalization
import makeReport
from cxr.files import write_json
from cxr.heat_maps import HeatMapFolder
from cxr.labels import CHEXPERT
from cxr.runs.run_record import RunRecord
from models.checkpoint import build_model, save_model
from tests.films import write_chexlocalize

LABELS, TASKS = CHEXPERT.names, CHEXPERT.task_names
FILMS = 4
WIDTH, HEIGHT = 80, 64


@pytest.fixture(scope="module")
def chexlocalize(tmp_path_factory):
    """A CheXlocalize of four non-square films per split, in its own layout."""
    return write_chexlocalize(tmp_path_factory.mktemp("chexlocalize"), FILMS, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small patch network and its baseline, untrained."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, patch_size in (("patch", 32), ("baseline", 64)):
        model = build_model("timm/test_efficientnet", patch_size=patch_size, image_size=64, labels=LABELS)
        save_model(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_chexpert, chexlocalize, weights):
    """Results of both networks: heat maps as pickles in `pickles/`, as evidence files in `evidence/`."""
    root = tmp_path_factory.mktemp("results")
    for name in ("patch", "baseline"):
        for kind, more in (("pickles", []), ("evidence", ["--no-pickles"])):
            command = ["--weights", weights / name, "--data", tiny_chexpert, "--chexlocalize", chexlocalize]
            command += ["--output", root / kind / name, "--steps-per-patch", 4, "--resamples", 50, "--workers", 0]
            assert run(evalClassification, *command, *more) == 0
    return root


def run(script, *arguments):
    return cli.guarded(script.main, [str(argument) for argument in arguments])


def localize(root, chexlocalize):
    folders = (root / "patch", root / "baseline")
    return run(evalLocalization, *folders, "--chexlocalize", chexlocalize, "--resamples", 50, "--workers", 0)


def test_heat_maps_of_all_methods_protocols_and_tasks(evaluated):
    for name, methods in (("patch", ("raw", "scaled")), ("baseline", ("gradcam", "gradcam++", "eigencam"))):
        for protocol in ("published", "corrected"):
            for method in methods:
                folder = evaluated / "pickles" / name / "heatmaps" / protocol / "test" / method
                assert len(HeatMapFolder(folder).entries) == FILMS * len(TASKS)
                heat_map = HeatMapFolder(folder).load("patient64741_study1_view1_frontal", "Airspace Opacity")
                assert heat_map.map.shape == ((64, 64) if protocol == "published" else (64, 80))
                assert heat_map.film_size == (WIDTH, HEIGHT)


def test_run_json_tells_what_was_done_and_that_patches_add_up(evaluated):
    facts = json.loads((evaluated / "pickles/patch/run.json").read_text())
    assert facts["additivity"]["test"]["max_error"] < 1e-5
    assert facts["data"]["test"]["films"] == 6
    assert facts["data"]["test"]["positives"]["No Finding"] == 3
    assert facts["model"]["patch_size"] == 32
    assert len(facts["weights"]["sha256"]) == 64


def test_evidence_files_score_exactly_as_pickles(evaluated, chexlocalize):
    for kind in ("pickles", "evidence"):
        assert localize(evaluated / kind, chexlocalize) == 0
    scored = sorted(path.relative_to(evaluated / "pickles") for path in (evaluated / "pickles").rglob("*_per_cxr.csv"))
    methods = 2 * 5 + 2  # in both protocols; relative and posterior in the corrected one
    assert len(scored) == methods * (2 + 4)  # hits, and IoU twice, each per film and resample
    for path in scored:
        assert (evaluated / "pickles" / path).read_bytes() == (evaluated / "evidence" / path).read_bytes(), path
    relative = [path.relative_to(evaluated / "evidence") for path in (evaluated / "evidence").glob("*/*/*/relative")]
    assert [str(path) for path in relative] == ["patch/localization/corrected/relative"]


def test_a_second_run_does_nothing(evaluated, tiny_chexpert, chexlocalize, weights, capsys):
    localize(evaluated / "pickles", chexlocalize)
    results = evaluated / "pickles/patch"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.*") if path.name != "run.json"}
    command = ["--weights", weights / "patch", "--data", tiny_chexpert, "--chexlocalize", chexlocalize]
    command += ["--output", results, "--steps-per-patch", 4, "--resamples", 50, "--workers", 0]
    assert run(evalClassification, *command) == 0
    assert localize(evaluated / "pickles", chexlocalize) == 0
    assert "0 of them new" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_or_weights_are_not_mixed_in(evaluated, tiny_chexpert, chexlocalize, weights, capsys):
    common = ["--data", tiny_chexpert, "--chexlocalize", chexlocalize, "--output", evaluated / "pickles/patch"]
    common += ["--resamples", 50, "--workers", 0]
    assert run(evalClassification, "--weights", weights / "patch", *common, "--steps-per-patch", 8) == 2
    assert "other settings (steps_per_patch: 4, now 8)" in capsys.readouterr().err
    assert run(evalClassification, "--weights", weights / "baseline", *common) == 2
    assert "other weights" in capsys.readouterr().err
    assert run(evalClassification, "--weights", weights / "patch", *common, "--steps-per-patch", 5) == 2
    assert "5 steps per patch of 32 pixels; possible are" in capsys.readouterr().err


def test_the_report_shows_what_was_measured(evaluated, chexlocalize, tmp_path, capsys):
    root = tmp_path / "results"
    shutil.copytree(evaluated / "pickles", root)
    assert localize(root, chexlocalize) == 0
    compare = ["--predictions", root / "patch", "--compare", root / "baseline", "--resamples", 50]
    assert run(evalClassification, *compare) == 0
    truth = chexlocalize / "CheXlocalize/gt_segmentations_test.json"
    assert run(makeReport, root, "--figures", "--gt-path", truth) == 0
    made = {path.name for path in (root / "report").rglob("*") if path.is_file()}
    assert {"table1.csv", "table2_corrected.md", "table3_published.tex", "comparison.md"} <= made
    hits = pd.read_csv(root / "patch/localization/corrected/raw/hitmiss_results_per_cxr.csv")[list(TASKS)]
    assert f"{hits.mean().mean():.3f}" in capsys.readouterr().out


def test_half_an_export_is_not_scored(evaluated, chexlocalize, tmp_path, capsys):
    """As a killed evalClassification.py leaves it: the stage was begun, and its journal names some files."""
    results = tmp_path / "patch"
    shutil.copytree(evaluated / "evidence/patch", results)
    record = json.loads((results / "run.json").read_text())
    del record["stages"]["heat_maps_test"]
    write_json(results / "run.json", record)
    written = sorted((results / "evidence/test").glob("*.npz"))
    with pytest.raises(KeyboardInterrupt), RunRecord(results).stage(
        "heat_maps_test", inputs={}, options={}, outputs=written
    ) as stage:  # fmt: skip
        stage.wrote(written[0])
        raise KeyboardInterrupt
    assert run(evalLocalization, results, "--chexlocalize", chexlocalize, "--workers", 1) == 2
    said = capsys.readouterr().err
    assert "its heat maps of test are not complete; run evalClassification.py again" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heatmaps", "raw"], "sees the whole film as one patch"),
        (["--patch-size", "32"], "have patch size 64, not 32"),
    ],
)
def test_maps_and_sizes_that_the_weights_cannot_give(weights, tiny_chexpert, tmp_path, capsys, arguments, message):
    command = ["--weights", weights / "baseline", "--data", tiny_chexpert, "--output", tmp_path, "--workers", 0]
    assert run(evalClassification, *command, *arguments) == 2
    assert message in capsys.readouterr().err
