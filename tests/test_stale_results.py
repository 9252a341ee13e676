"""A result that is said to be complete is the result of what is there now; nothing of another network is destroyed."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

import cli
import evalClassification
import evalLocalization
from cxr.files import write_json
from cxr.labels import CHEXPERT
from cxr.runs.folder_lock import locked
from cxr.runs.run_record import Stage
from models.checkpoint import build_model, save_model
from tests.films import write_chexlocalize, write_film

FILMS, WIDTH, HEIGHT = 2, 80, 64
MAPS = "heatmaps/corrected/test"


@pytest.fixture(scope="module")
def chexlocalize(tmp_path_factory):
    """Two films per split, in CheXlocalize's layout."""
    return write_chexlocalize(tmp_path_factory.mktemp("chexlocalize"), FILMS, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT.names)
    save_model(model, folder / "patch")
    return folder / "patch"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_chexpert, chexlocalize, weights):
    root = tmp_path_factory.mktemp("evaluated")
    assert evaluate(weights, tiny_chexpert, chexlocalize, root / "patch") == 0
    assert localize(root / "patch", chexlocalize) == 0
    return root / "patch"


@pytest.fixture
def results(evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "patch")
    return tmp_path / "patch"


def run(script, *arguments):
    return cli.guarded(script.main, [str(argument) for argument in arguments])


def evaluate(weights, data, chexlocalize, output, *more):
    command = ["--weights", weights, "--data", data, "--chexlocalize", chexlocalize, "--output", output, "--workers", 0]
    command += ["--steps-per-patch", 1, "--resamples", 20, "--heatmaps", "raw", "--protocols", "corrected"]
    return run(evalClassification, *command, *more)


def localize(results, chexlocalize):
    return run(evalLocalization, results, "--chexlocalize", chexlocalize, "--resamples", 20, "--workers", 1)


def contents(results):
    return {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*")
        if path.is_file() and path.name != "run.json"
    }


@pytest.mark.parametrize("harm", ["delete", "empty", "cut off", "same size"])
def test_every_file_that_is_deleted_or_changed_is_made_again(
    evaluated, results, tiny_chexpert, chexlocalize, weights, harm
):
    made = contents(evaluated)
    for name in [*made][:: 7 if harm == "same size" else 5]:
        if harm == "delete":
            (results / name).unlink()
        else:
            whole = made[name]
            changed = {"empty": b"", "cut off": whole[: len(whole) // 2], "same size": whole[:-1] + b"\0"}[harm]
            (results / name).write_bytes(changed)
    assert evaluate(weights, tiny_chexpert, chexlocalize, results) == 0
    assert localize(results, chexlocalize) == 0
    assert contents(results) == made


def test_films_that_were_replaced_are_predicted_again(results, tiny_chexpert, chexlocalize, weights, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_chexpert, data)
    before = (results / "predictions_test.csv").read_bytes()
    film = next((data / "test").rglob("*.jpg"))
    write_film(film, 64, 64, seed=999)
    assert evaluate(weights, data, chexlocalize, results) == 0
    assert (results / "predictions_test.csv").read_bytes() != before


def test_maps_of_more_methods_are_added(results, tiny_chexpert, chexlocalize, weights):
    raw = contents(results / MAPS / "raw")
    assert evaluate(weights, tiny_chexpert, chexlocalize, results, "--heatmaps", "scaled") == 0
    assert contents(results / MAPS / "raw") == raw and len(contents(results / MAPS / "scaled")) == len(raw)
    stage = json.loads((results / "run.json").read_text())["stages"]["heat_maps_test"]
    films = FILMS  # with an evidence file each, beside the pickles
    assert len(stage["outputs"]) == 2 * len(raw) + films and stage["done"] == stage["expected"] == len(raw) + films


def test_protocols_one_after_the_other_both_remain(tmp_path, tiny_chexpert, chexlocalize, weights):
    one_by_one, at_once = tmp_path / "patch", tmp_path / "at once/patch"
    published = one_by_one / "heatmaps/published/test/raw"
    written = []
    for protocol in ("published", "corrected"):
        assert evaluate(weights, tiny_chexpert, chexlocalize, one_by_one, "--protocols", protocol) == 0
        written.append({path: path.stat().st_mtime_ns for path in published.iterdir()})
    assert written[0] == written[1] and len(written[0]) == 2 * FILMS * 5
    assert evaluate(weights, tiny_chexpert, chexlocalize, at_once, "--protocols", "published", "corrected") == 0
    assert contents(one_by_one) == contents(at_once)
    stage = json.loads((one_by_one / "run.json").read_text())["stages"]["heat_maps_test"]
    assert len(stage["outputs"]) == 2 * len(written[0]) + FILMS  # an evidence file each


def test_labels_one_after_the_other_all_remain(tiny_chexpert, chexlocalize, weights, tmp_path):
    """First the labels with outlines, then all. Of evidence files: tests/saliency/evidence/test_evidence_files.py."""
    one_by_one, at_once = tmp_path / "one by one", tmp_path / "at once"
    for labels in ([], ["--all-labels"], []):
        assert evaluate(weights, tiny_chexpert, chexlocalize, one_by_one, *labels) == 0
    assert evaluate(weights, tiny_chexpert, chexlocalize, at_once, "--all-labels") == 0
    found, expected = ({p: c for p, c in contents(of).items() if p.suffix != ".npz"} for of in (one_by_one, at_once))
    assert found == expected
    evidence = [path.relative_to(at_once) for path in at_once.glob("evidence/*/*.npz")]
    assert len(evidence) == 2 * FILMS
    for path in evidence:  # the order of the arrays is that in which they were made
        with np.load(one_by_one / path) as one, np.load(at_once / path) as other:
            assert set(one) == set(other)
            for name in set(one) - {"facts"}:
                np.testing.assert_array_equal(one[name], other[name])
    assert len(contents(one_by_one / MAPS)) == FILMS * len(CHEXPERT.names)


def test_a_kill_after_evidence_was_added_to_a_file_loses_nothing_of_it(
    tmp_path, tiny_chexpert, chexlocalize, weights, monkeypatch
):
    """The file with both methods lies there and is not noted yet."""
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    arguments = (weights, tiny_chexpert, chexlocalize)
    assert evaluate(*arguments, killed, "--no-pickles", "--all-labels") == 0
    assert evaluate(*arguments, undisturbed, "--no-pickles", "--all-labels", "--heatmaps", "raw", "gradcam") == 0

    class Killed(BaseException):
        pass

    def dying(stage, *paths):
        raise Killed

    monkeypatch.setattr(Stage, "wrote", dying)
    with pytest.raises(Killed):
        evaluate(*arguments, killed, "--no-pickles", "--heatmaps", "gradcam")
    monkeypatch.undo()
    assert evaluate(*arguments, killed, "--no-pickles", "--heatmaps", "gradcam") == 0
    files = sorted((undisturbed / "evidence").rglob("*.npz"))
    assert len(files) == 2 * FILMS
    for path in files:
        ours, whole = (np.load(path), np.load(killed / path.relative_to(undisturbed)))
        grids = [name for name in ours.files if name.startswith("grid ")]
        assert len(grids) == 14 and all(np.array_equal(ours[name], whole[name]) for name in grids)
        assert "gradcam Edema" in whole.files


def test_unfinished_or_missing_maps_are_not_scored(results, chexlocalize, capsys):
    shutil.rmtree(results / "localization")
    record = json.loads((results / "run.json").read_text())
    next((results / MAPS / "raw").iterdir()).unlink()
    assert localize(results, chexlocalize) == 2
    assert "its heat maps of test are missing or changed (1 of 22 files" in capsys.readouterr().err
    record["stages"]["heat_maps_test"]["done"] = None
    write_json(results / "run.json", record)
    assert localize(results, chexlocalize) == 2
    assert "its heat maps of test are not complete; run evalClassification.py again" in capsys.readouterr().err
    assert not (results / "localization").exists()


def test_the_same_weights_as_another_network_are_refused(
    results, tiny_chexpert, chexlocalize, weights, tmp_path, capsys
):
    shutil.copytree(weights, tmp_path / "other")
    config = json.loads((weights / "config.json").read_text())
    write_json(tmp_path / "other/config.json", config | {"patch_size": 64})
    before = contents(results)
    assert evaluate(tmp_path / "other", tiny_chexpert, chexlocalize, results, "--heatmaps", "none") == 2
    assert "holds results of these weights as another network (patch_size 32)" in capsys.readouterr().err
    assert contents(results) == before


def test_predictions_that_were_cut_are_not_evaluated(results, capsys):
    path = results / "predictions_test.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert run(evalClassification, "--predictions", results, "--resamples", 20) == 2
    assert "predictions_test.csv: changed since it was made" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_that_are_gone_take_no_results_with_them(results, split, capsys):
    (results / f"predictions_{split}.csv").unlink()
    before = contents(results)
    assert run(evalClassification, "--predictions", results, "--resamples", 20) == 2
    assert f"predictions_{split}.csv: gone since results were made of it" in capsys.readouterr().err
    assert contents(results) == before


def test_thresholds_that_were_laid_into_a_folder_are_not_its_own_to_remove(results, tmp_path, capsys):
    """A folder of test predictions alone, with the thresholds of somebody else's validation films."""
    folder = tmp_path / "test films"
    folder.mkdir()
    for name in ("predictions_test.csv", "thresholds.json", "calibration.json"):
        shutil.copy(results / name, folder / name)
    laid = [(folder / name).read_bytes() for name in ("thresholds.json", "calibration.json")]
    evaluate_again = [evalClassification, "--predictions", folder, "--resamples", 20]
    assert run(*evaluate_again) == 0
    first = (folder / "classification_test.csv").read_bytes()
    assert first == (results / "classification_test.csv").read_bytes()
    text = (folder / "predictions_test.csv").read_text().splitlines(keepends=True)
    (folder / "predictions_test.csv").write_text("".join([text[0], *reversed(text[1:])]))
    assert run(*evaluate_again) == 0
    assert [(folder / name).read_bytes() for name in ("thresholds.json", "calibration.json")] == laid
    thresholds = json.loads(laid[0])
    write_json(folder / "thresholds.json", thresholds | {"Edema": {"threshold": 0.999, "reason": None}})
    capsys.readouterr()
    assert run(*evaluate_again) == 0
    assert "complete" not in capsys.readouterr().out
    assert (folder / "classification_test.csv").read_bytes() != first
    assert run(*evaluate_again) == 0 and "the tables are complete" in capsys.readouterr().out


def test_a_folder_in_use_is_refused(results, tiny_chexpert, chexlocalize, weights, capsys):
    holding, done = (os.pipe() for _ in range(2))
    child = os.fork()
    if not child:
        with locked(results):
            os.write(holding[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(holding[0], 1)
    try:
        assert evaluate(weights, tiny_chexpert, chexlocalize, results) == 2
        assert f"process {child} on " in capsys.readouterr().err
        assert localize(results, chexlocalize) == 2
        assert f"process {child} on " in capsys.readouterr().err
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)


@pytest.fixture
def two_results(results):
    """A second results folder beside the first, whose scores differ in one film."""
    other = results.with_name("other")
    shutil.copytree(results, other)
    return results, other


def compare(first, second, chexlocalize):
    return run(evalLocalization, first, second, "--chexlocalize", chexlocalize, "--resamples", 20, "--workers", 1)


def test_differences_are_complete_only_of_the_scores_that_are_there(two_results, chexlocalize, capsys):
    first, second = two_results
    target = first.parent / "localization_differences.csv"
    assert compare(first, second, chexlocalize) == 0
    made, written = target.read_bytes(), target.stat().st_mtime_ns
    stages = json.loads((first / "run.json").read_text())["stages"]
    assert stages["differences with other"]["done"] == stages["differences with other"]["expected"] == 1
    capsys.readouterr()
    assert compare(first, second, chexlocalize) == 0
    assert f"{target}: complete" in capsys.readouterr().out and target.stat().st_mtime_ns == written
    for harm in (b"", made[:-1] + b"9"):
        target.write_bytes(harm)
        assert compare(first, second, chexlocalize) == 0
        assert target.read_bytes() == made
    target.unlink()
    assert compare(first, second, chexlocalize) == 0
    assert target.read_bytes() == made
    target.write_bytes(b"of two other folders")
    capsys.readouterr()
    assert compare(second, first, chexlocalize) == 0
    assert f"{target}: complete" not in capsys.readouterr().out and target.read_bytes() != b"of two other folders"


def test_differences_follow_changed_maps(two_results, tiny_chexpert, chexlocalize, tmp_path):
    first, second = two_results
    assert compare(first, second, chexlocalize) == 0
    target = first.parent / "localization_differences.csv"
    same = target.read_bytes()
    torch.manual_seed(1)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT.names)
    save_model(model, tmp_path / "weights of another")
    shutil.rmtree(second)
    assert evaluate(tmp_path / "weights of another", tiny_chexpert, chexlocalize, second) == 0
    assert compare(first, second, chexlocalize) == 0
    assert target.read_bytes() != same


def test_another_grey_rule_of_the_copies_is_another_input(results, tiny_chexpert, chexlocalize, weights, tmp_path):
    """The films are the same to the bit; the record of how their copies were made is not."""
    data = tmp_path / "data"
    shutil.copytree(tiny_chexpert, data)
    assert evaluate(weights, data, chexlocalize, results) == 0
    stages = json.loads((results / "run.json").read_text())["stages"]
    write_json(data / "preprocessing.json", {"size": 64, "grey": {"rule": "range", "low": 0, "high": 200}})
    assert evaluate(weights, data, chexlocalize, results) == 0
    changed = json.loads((results / "run.json").read_text())["stages"]
    for stage in ("predictions_test", "heat_maps_test"):
        assert "grey" not in stages[stage]["inputs"]
        assert changed[stage]["inputs"]["grey"] == {"rule": "range", "low": 0, "high": 200}
        assert changed[stage]["fingerprint"] != stages[stage]["fingerprint"]


def test_a_kill_before_the_record_is_written_loses_no_facts(results, tiny_chexpert, chexlocalize, weights, monkeypatch):
    """The predictions are there already, noted in the journal; their description comes with the record."""
    known = json.loads((results / "run.json").read_text())
    facts = {name: known[name] for name in ("data", "additivity")}
    assert all({"val", "test"} <= part.keys() for part in facts.values())
    shutil.rmtree(results)

    class Killed(BaseException):
        pass

    def killed(stage, facts):
        raise Killed

    monkeypatch.setattr(Stage, "note", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            evaluate(weights, tiny_chexpert, chexlocalize, results)
    assert (results / "predictions_val.csv").is_file()
    monkeypatch.undo()
    assert evaluate(weights, tiny_chexpert, chexlocalize, results) == 0
    again = json.loads((results / "run.json").read_text())
    assert {name: again[name] for name in facts} == facts


def test_the_record_of_an_older_version_is_accepted_and_its_files_made_again(
    evaluated, results, tiny_chexpert, chexlocalize, weights
):
    """Stages held what they were made from and their seconds; without hashes of their files none is believed."""
    record = json.loads((results / "run.json").read_text())
    old = {name: {"made_from": stage["inputs"], "seconds": 1.0} for name, stage in record["stages"].items()}
    write_json(results / "run.json", record | {"stages": old})
    made = contents(evaluated)
    (results / "predictions_test.csv").write_text("Path\n")
    assert evaluate(weights, tiny_chexpert, chexlocalize, results) == 0
    assert localize(results, chexlocalize) == 0
    assert contents(results) == made
