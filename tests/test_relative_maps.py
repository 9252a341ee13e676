"""Relative maps from evaluation to a single film: pickles, the fine maps' predictions, a reference that travels."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cli
import convertWeights
import evalClassification
import evalLocalization
import medicalpatchnet
from cxr.files import InputError, sha256
from cxr.heat_maps import HeatMapFolder
from cxr.labels import CHEXPERT
from cxr.runs.run_record import RunRecord
from models.checkpoint import build_model, load_model, save_model
from models.patch_net import MedicalPatchNet
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.recorded_stages import make_recorded_reference
from saliency.reference import RunningMeans, Settings, read_reference, write_reference
from tests.films import write_chexlocalize
from tests.networks import calibrate
from tests.predicting import predict, results

FILMS, WIDTH, HEIGHT = 2, 80, 64
TASKS = CHEXPERT.task_names
FILM = "patient64741_study1_view1_frontal"


@pytest.fixture(scope="module")
def chexlocalize(tmp_path_factory):
    """Two frontal films per split, in CheXlocalize's layout."""
    return write_chexlocalize(tmp_path_factory.mktemp("chexlocalize"), FILMS, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT.names)
    calibrate(model, torch.rand(4, 1, 64, 64))
    folder = tmp_path_factory.mktemp("weights") / "patch"
    save_model(model, folder)
    return folder


def run(script, *arguments):
    return cli.guarded(script.main, [str(argument) for argument in arguments])


def evaluate(weights, data, chexlocalize, output):
    paths = ("--weights", weights, "--data", data, "--chexlocalize", chexlocalize, "--output", output)
    return run(evalClassification, *paths, "--steps-per-patch", 4, "--resamples", 20, "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_chexpert, chexlocalize, weights):
    """Results with pickles of all methods."""
    folder = tmp_path_factory.mktemp("evaluated") / "patch"
    assert evaluate(weights, tiny_chexpert, chexlocalize, folder) == 0
    return folder


def hashes(folder, pattern):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(pattern))}


def test_pickles_of_relative_maps_are_those_of_evidence_and_reference(evaluated):
    reference = read_reference(evaluated / "reference.npz")
    for split in ("val", "test"):
        folder = evaluated / "evidence" / split
        for method in ("raw", "relative"):
            stored = HeatMapFolder(evaluated / "heatmaps/corrected" / split / method)
            made = EvidenceFolder(folder, method=method, protocol="corrected", tasks=TASKS, reference=reference)
            assert stored.entries == sorted(made.entries) and len(stored.entries) == FILMS * len(TASKS)
            for key in stored.entries:
                first, second = stored.load(*key), made.load(*key)
                assert np.array_equal(first.map, second.map) and first.film_size == second.film_size
                assert (first.probability, first.ground_truth) == (second.probability, second.ground_truth)
    assert not (evaluated / "heatmaps/published/test/relative").exists()
    raw, relative = (
        HeatMapFolder(evaluated / "heatmaps/corrected/test" / m).load(FILM, "Edema") for m in ("raw", "relative")
    )
    assert np.abs(raw.map - relative.map).max() > 1e-4


def test_a_relative_pickle_that_is_gone_is_noticed_and_made_again(
    evaluated, tmp_path, tiny_chexpert, chexlocalize, weights, capsys
):
    folder = shutil.copytree(evaluated, tmp_path / "patch")
    pickle = folder / f"heatmaps/corrected/test/relative/{FILM}_Edema_map.pkl"
    content = pickle.read_bytes()
    pickle.unlink()
    scoring = (folder, "--chexlocalize", chexlocalize, "--resamples", 5, "--workers", 0)
    assert run(evalLocalization, *scoring) == 2
    assert "relative maps are missing or changed (1 of 20 files" in capsys.readouterr().err
    assert evaluate(weights, tiny_chexpert, chexlocalize, folder) == 0
    assert pickle.read_bytes() == content
    assert run(evalLocalization, *scoring) == 0
    assert (folder / "localization/corrected/relative/iou_summary_results.csv").is_file()


def test_labels_without_a_reference_are_named_with_the_way_to_one(evaluated):
    """Evidence is kept of labels whose maps are made: the outlined ones."""
    record, path = RunRecord(evaluated), evaluated / "reference.npz"
    ids = {
        split: sorted(path.stem for path in (evaluated / f"evidence/{split}").iterdir()) for split in ("val", "test")
    }
    complete, line = make_recorded_reference(record, ids)
    without = [label for label in CHEXPERT.names if CHEXPERT.task_of(label) not in read_reference(path).tasks]
    assert complete.endswith("reference.npz: complete") and len(without) == 4
    assert line.startswith("no reference of " + ", ".join(f"'{label}'" for label in without)) and "--all-labels" in line
    record.content["label_set"] = CHEXPERT.restrict([n for n in CHEXPERT.names if n not in without]).to_json()
    assert make_recorded_reference(record, ids) == [complete]


def test_the_fine_maps_have_predictions_and_tables_of_their_own(evaluated, capsys):
    own = hashes(evaluated, "[!m]*.csv") | hashes(evaluated, "*.json")
    own.pop("run.json")
    of_maps = pd.read_csv(evaluated / "map_predictions_test.csv")
    unshifted = pd.read_csv(evaluated / "predictions_test.csv").set_index("Path").loc[of_maps["Path"]]
    assert len(of_maps) == FILMS and (of_maps["sd Edema"] > 0).all()
    assert not np.allclose(of_maps["prob Edema"], unshifted["prob Edema"])
    made = hashes(evaluated, "map_*")
    assert {"map_classification_test.csv", "map_thresholds.json", "map_roc_val.csv"} <= made.keys()
    assert set(pd.read_csv(evaluated / "map_classification_test.csv")["label"]) >= set(CHEXPERT.tasks)
    command = ("--predictions", evaluated, "--predict-from", "grid", "--resamples")
    assert run(evalClassification, *command, 30) == 0
    assert hashes(evaluated, "map_predictions*") == {name: made[name] for name in hashes(evaluated, "map_predictions*")}
    assert hashes(evaluated, "map_classification*") != {name: made[name] for name in hashes(evaluated, "map_cl*")}
    assert {name: hashes(evaluated, name)[name] for name in own} == own
    assert "test, fine maps, mean of the 10 labels: auroc" in capsys.readouterr().out


@pytest.mark.parametrize("more", [("--weights", "hf://a/b", "--data", "d"), ("--predictions", "p", "--compare", "q")])
def test_tables_of_the_fine_maps_are_asked_for_alone(more, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(evalClassification, *more, "--predict-from", "grid")
    assert stopped.value.code == 2 and "--predict-from" in capsys.readouterr().err


def test_a_folder_without_fine_maps_says_so(tmp_path, capsys):
    assert run(evalClassification, "--predictions", tmp_path, "--predict-from", "grid") == 2
    assert "no map_predictions_val.csv or map_predictions_test.csv in this folder" in capsys.readouterr().err


def test_the_record_certifies_what_adds_up(evaluated):
    certificates = json.loads((evaluated / "run.json").read_text())["certificates"]
    for split in ("val", "test"):
        for name in ("unshifted_additivity", "fine_additivity", "shapley_identity"):
            assert certificates[split][name]["max_error"] < 1e-4 and certificates[split][name]["films"] == FILMS


# -------------------------------------------------------------------------------------------------------- a single film


@pytest.fixture(scope="module")
def described(tmp_path_factory, evaluated, weights):
    """The weights with what was measured, and the reference, beside them."""
    folder = shutil.copytree(weights, tmp_path_factory.mktemp("described") / "patch")
    assert run(convertWeights, "describe", folder, "--results", evaluated) == 0
    assert read_reference(folder / "reference.npz").films == read_reference(evaluated / "reference.npz").films
    return folder


@pytest.fixture(scope="module")
def film(chexlocalize):
    return chexlocalize / "CheXpert/test/patient64741/study1/view1_frontal.jpg"


def test_one_film_is_compared_with_the_average_film_of_its_view(described, film, evaluated, tmp_path, capsys):
    Image.open(film).save(tmp_path / "plain.png")
    assert predict(described, tmp_path / "out", film, tmp_path / "plain.png", "--overlays", "all") == 0
    printed = capsys.readouterr().out
    assert "warning: the reference of all views is the mean of 2 films" in printed
    assert "no average film of 'No Finding', 'Pneumonia', 'Pleural Other', 'Fracture': raw maps only" in printed
    table, content = results(tmp_path / "out")
    assert content["reference"]["films"] == {"all": 2, "frontal": 2}
    first, second = content["films"]
    assert (first["reference"]["compared_with"], second["reference"]["compared_with"]) == ("frontal", "all")
    assert second["reference"]["note"].startswith("the film's view is not known: compared with the mean of all 2")
    row = table[(table["film"] == FILM) & (table["label"] == "Edema")].iloc[0]
    means = []
    for path in sorted((evaluated / "evidence/val").iterdir()):
        with np.load(path) as stored:
            probability = json.loads(str(stored["facts"]))["probability"]["Edema"]
            means.append(np.log(probability / (1 - probability)))
    assert row["average_film"] == pytest.approx(np.mean(means), abs=1e-4)
    assert row["average_film"] + row["patches"] == pytest.approx(row["logit"], abs=1e-4)
    logit, average, added = (row[name] for name in ("logit", "average_film", "patches"))
    assert f"Edema: logit {logit:.2f} = average frontal film {average:.2f} + patches {added:+.2f} (" in printed
    relative = next(label for label in first["labels"] if label["label"] == "Edema")["relative"]
    patches = relative["strongest_for"] + relative["strongest_against"]
    assert len(patches) == 4 and sum(patch["share"] for patch in patches) == pytest.approx(1)
    assert (tmp_path / "out" / relative["overlay"]["file"]).is_file()
    assert relative["overlay"]["method"] == "relative"
    assert table[table["label"] == "Fracture"]["patches"].isna().all()


def test_the_view_of_a_film_can_be_given(described, film, tmp_path):
    Image.open(film).save(tmp_path / "plain.png")
    found = {}
    for view in ("frontal", "lateral"):
        assert predict(described, tmp_path / view, tmp_path / "plain.png", "--overlays", "none", "--view", view) == 0
        found[view] = results(tmp_path / view)[1]["films"][0]["reference"]
    assert found["frontal"]["compared_with"] == "frontal"
    assert found["lateral"]["note"] == "no reference film is lateral: compared with the mean of all 2 reference films"


def test_explain_gives_relative_maps_too(described, film, evaluated, tmp_path):
    explanation = medicalpatchnet.explain(medicalpatchnet.load(described), film, view="frontal")
    reference = read_reference(evaluated / "reference.npz")
    made = EvidenceFolder(
        evaluated / "evidence/test", method="relative", protocol="corrected", tasks=TASKS, reference=reference
    )
    for label, task in CHEXPERT.tasks.items():  # by default as fine as the reference is
        np.testing.assert_allclose(explanation.relative[label], made.load(FILM, task).map, atol=1e-6)
    assert explanation.compared.average.shape == (14,) and "Fracture" not in explanation.relative
    assert explanation.overlay("Edema", "relative").size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="'Fracture': there is no relative map of it"):
        explanation.overlay("Fracture", "relative")
    with pytest.raises(InputError, match="'PA': expected frontal, lateral"):
        medicalpatchnet.explain(medicalpatchnet.load(described), film, view="PA")
    explanation.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text())["relative"]
    assert facts["compared_with"] == "frontal" and facts["labels"].keys() == CHEXPERT.tasks.keys()
    assert all((tmp_path / of["overlay"]["file"]).is_file() for of in facts["labels"].values())


def test_finer_overlays_than_the_reference_are_refused(described, film, tmp_path, capsys):
    assert predict(described, tmp_path / "out", film, "--steps-per-patch", "8") == 2
    assert "--steps-per-patch: 8 steps per patch do not divide the 4" in capsys.readouterr().err
    with pytest.raises(InputError, match="--stride 3: the weights' reference.npz has 4 steps; give --steps-per-patch"):
        medicalpatchnet.explain(medicalpatchnet.load(described), film, stride=3)


def test_a_reference_of_other_weights_is_refused_in_one_line(described, evaluated, film, tmp_path, capsys):
    folder = shutil.copytree(described, tmp_path / "other")
    model = load_model(folder)
    torch.nn.init.normal_(model.head.bias)
    save_model(model, folder)
    assert not (folder / "reference.npz").exists()  # it belonged to the weights that were replaced
    shutil.copy(described / "reference.npz", folder)
    assert predict(folder, tmp_path / "out", film) == 2
    error = capsys.readouterr().err.strip()
    assert "reference.npz: the reference of other weights" in error and error.count("\n") == 0
    assert run(convertWeights, "describe", folder, "--results", evaluated) == 2
    assert "measured with other weights" in capsys.readouterr().err


def test_a_reference_goes_where_the_same_weights_go(described, tmp_path):
    convertWeights.convert(described, tmp_path / "copy")
    model = medicalpatchnet.load(tmp_path / "copy")
    model.save_pretrained(tmp_path / "saved")  # as push_to_hub does
    for folder in ("copy", "saved"):
        again = medicalpatchnet.load(tmp_path / folder).reference
        assert again.settings == model.reference.settings and again.counts == {"all": 2, "frontal": 2}
        assert all(np.array_equal(again.grids[key], grid) for key, grid in model.reference.grids.items())
    torch.nn.init.zeros_(model.head.bias)  # now they are other weights, of which it is not the reference
    model.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed/reference.npz").exists()


def test_a_reference_goes_with_a_network_of_from_pretrained(described, tmp_path):
    model = MedicalPatchNet.from_pretrained(described)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/reference.npz").read_bytes() == (described / "reference.npz").read_bytes()
    torch.nn.init.zeros_(model.head.bias)
    model.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed/reference.npz").exists()


def test_a_published_file_has_no_reference_and_that_is_said(tmp_path, capsys):
    save_model(build_model("efficientnet_b0", patch_size=64, image_size=512, labels=CHEXPERT.names), tmp_path / "b0")
    means = RunningMeans(Settings(sha256(tmp_path / "b0/model.safetensors"), 64, 1, 512), TASKS)
    means.add("", np.zeros((len(TASKS), 8, 8)))
    write_reference(tmp_path / "b0/reference.npz", means.result(""))
    convertWeights.convert(tmp_path / "b0", tmp_path / "weights.pt")
    assert "reference.npz belongs to" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"b0", "weights.pt"}


# ---------------------------------------------------------------------------------------------------------- calibration


def test_calibrated_log_odds_of_the_patches_sum_to_those_of_the_film(weights, film, tmp_path):
    model = load_model(weights)
    model.details["calibration"] = {"Edema": {"slope": 0.5, "intercept": -1.25}}
    save_model(model, tmp_path / "weights")
    assert predict(tmp_path / "weights", tmp_path / "out", film, "--overlays", "none") == 0
    table, content = results(tmp_path / "out")
    labels = {label["label"]: label for label in content["films"][0]["labels"]}
    edema, calibrated = labels["Edema"], labels["Edema"]["calibrated"]
    assert calibrated["log_odds"] == pytest.approx(0.5 * edema["logit"] - 1.25)
    assert calibrated["probability"] == pytest.approx(1 / (1 + np.exp(-calibrated["log_odds"])))
    assert sum(calibrated["patches"]) == pytest.approx(calibrated["log_odds"], abs=1e-5)
    with torch.inference_mode():
        explanation = medicalpatchnet.explain(model, film)
    contributions = explanation.contributions[:, CHEXPERT.names.index("Edema")]
    np.testing.assert_allclose(np.diff(calibrated["patches"]), 0.5 * np.diff(contributions), atol=1e-5)
    assert labels["Fracture"]["calibrated"] is None
    values = table.set_index("label")["calibrated_probability"]
    assert values["Edema"] == pytest.approx(calibrated["probability"]) and values.drop("Edema").isna().all()


def test_lines_travel_with_the_weights(described, evaluated):
    lines = json.loads((evaluated / "calibration.json").read_text())
    known = {
        label: {n: line[n] for n in ("slope", "intercept")}
        for label, line in lines.items()
        if line["slope"] is not None
    }
    assert load_model(described).details["calibration"] == known


@pytest.mark.parametrize(
    "line", [{"slope": 1}, {"slope": "1", "intercept": 0}, [1, 0], {"slope": 1e99, "intercept": 0}]
)
def test_lines_that_are_none_are_refused(weights, tmp_path, line):
    model = load_model(weights)
    model.details["calibration"] = {"Edema": line}
    with pytest.raises(InputError, match="details, calibration, Edema: expected a slope and an intercept"):
        save_model(model, tmp_path / "weights")
