"""A CheXpert network on films of another data set: the same films under NIH's tables give the same predictions."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cli
import evalClassification
import evalLocalization
import makeReport
from cxr import mappings
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, save_model
from preprocessing import makeManifest
from preprocessing.phantom.cohort import draw_cohort
from preprocessing.phantom.film import render
from tests.networks import calibrate
from tests.preprocessing.sources.releases import NIH_HEADER, write

NIH_WORDS = {
    "No Finding": "No Finding",
    "Cardiomegaly": "Cardiomegaly",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion",
}
"""CheXpert's labels that NIH has, and its words for them, written here once more."""


def run(script, *arguments: object) -> int:
    return cli.guarded(script.main, [str(argument) for argument in arguments])


def evaluate(world: Path, data: str, output: Path, *more: object) -> int:
    command = ["--weights", world / "weights", "--data", world / data, "--output", output, "--steps-per-patch", 2]
    return run(evalClassification, *command, "--resamples", 0, "--workers", 0, "--device", "cpu", *more)


def cells(path: Path) -> dict[str, dict[str, str]]:
    """Patient and number of a film -> its row, as text. Films are called so in both sets."""
    with open(path, newline="") as handle:
        return {Path(row["Path"]).stem: row for row in csv.DictReader(handle)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Drawn films as a data set of CheXpert's labels and as an NIH release, the latter's manifest, and a network."""
    root = tmp_path_factory.mktemp("world")
    films = [film for film in draw_cohort(30, seed=1) if film.split != "train"]
    names = {film: f"{film.patient:08d}_{film.index:03d}" for film in films}
    for film in films:
        pixels = Image.fromarray(render(film, seed=1).image).resize((256, 256))
        for folder in ("chexpert", "nih/images"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            pixels.save(root / folder / f"{names[film]}.png")
    write_chexpert(root / "chexpert", films, names)
    write_nih(root / "nih", films, names)
    assert run(makeManifest, "--source", "nih", root / "nih", "--output", root / "manifest") == 0
    for table in ("films.csv", "dataset.json"):
        (root / "nih" / table).write_bytes((root / "manifest" / table).read_bytes())
    write_regions(root)
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=CHEXPERT.names)
    calibrate(model, torch.rand((4, 1, 64, 64), generator=torch.Generator().manual_seed(2)))
    save_model(model, root / "weights")
    return root


def write_chexpert(root: Path, films, names) -> None:
    rows = [
        {"Path": f"{names[film]}.png", "Patient": film.patient, "Split": film.split}
        | {label: int(present) for label, present in film.truth().items()}
        for film in films
    ]
    pd.DataFrame(rows).to_csv(root / "films.csv", index=False)
    (root / "dataset.json").write_text(json.dumps({"labels": CHEXPERT.to_json()["names"], "blank": "not labelled"}))


def write_nih(root: Path, films, names) -> None:
    """The films of `valid` and `test`, each as NIH's own table would list it; one has a box and a finding of NIH's."""
    rows, boxes, lists = [], [], {"valid": [], "test": []}
    for film in films:
        found = [NIH_WORDS[label] for label, present in film.truth().items() if present and label in NIH_WORDS]
        found = found or ["Hernia"]
        name = f"{names[film]}.png"
        rows.append(f"{name},{'|'.join(found)},0,{film.patient},{film.age},{film.sex[0]},PA,256,256,0.1,0.1")
        lists[film.split].append(name)
        boxes += [f"{name},{finding},300,500,200,300" for finding in ("Effusion", "Cardiomegaly") if finding in found]
    write(root / "Data_Entry_2017_v2020.csv", NIH_HEADER, *rows)
    write(root / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", *(f"{box},,," for box in boxes))
    (root / "train_val_list.txt").write_text("\n".join(lists["valid"]))
    (root / "test_list.txt").write_text("\n".join(lists["test"]))


def write_regions(root: Path) -> None:
    """The outlines for films of 256 px, a quarter of NIH's."""
    regions = json.loads((root / "manifest/regions.json").read_text())
    for tasks in regions.values():
        for entry in tasks.values():
            entry["size"] = [256, 256]
            entry["boxes"] = [[side / 4 for side in box] for box in entry["boxes"]]
    (root / "nih/regions.json").write_text(json.dumps(regions))


@pytest.fixture(scope="module")
def results(world) -> Path:
    """Both evaluations of the test films, each in a folder of its own."""
    assert evaluate(world, "chexpert", world / "results/own") == 0
    assert evaluate(world, "nih", world / "results/nih", "--map", "nih") == 0
    return world / "results"


def test_same_network_and_films_give_the_same_predictions_byte_for_byte(results):
    own, mapped = (cells(results / name / "predictions_test.csv") for name in ("own", "nih"))
    assert len(own) >= 6 and own.keys() == mapped.keys()
    columns = {name for row in mapped.values() for name in row if name.startswith(("prob ", "label "))}
    assert columns == {f"{kind} {label}" for kind in ("prob", "label") for label in NIH_WORDS}
    for film, row in mapped.items():
        for label in NIH_WORDS:
            assert row[f"prob {label}"] == own[film][f"prob {label}"]
        for label in NIH_WORDS.keys() - {"No Finding"}:
            assert row[f"label {label}"] == own[film][f"label {label}"]
    assert len({row["prob Edema"] for row in mapped.values()}) == len(mapped)


def test_labels_are_the_words_of_the_table(results, world):
    with open(world / "nih/Data_Entry_2017_v2020.csv", newline="") as handle:
        words = {Path(row["Image Index"]).stem: row["Finding Labels"].split("|") for row in csv.DictReader(handle)}
    for film, row in cells(results / "nih/predictions_test.csv").items():
        for label, word in NIH_WORDS.items():
            assert row[f"label {label}"] == str(int(word in words[film])), (film, label)


def test_tables_have_the_shared_labels_only_and_say_so(results):
    table = pd.read_csv(results / "nih/classification_test.csv")
    assert set(table["label"]) == {*NIH_WORDS, "Mean (8 shared)", "Mean (CheXlocalize 6)"}
    own = pd.read_csv(results / "own/classification_test.csv")
    assert {"Mean (14)", "Fracture"} <= set(own["label"])
    aurocs = table[table["metric"] == "auroc"].set_index("label")["value"]
    assert aurocs["Mean (8 shared)"] == pytest.approx(np.nanmean([aurocs[label] for label in NIH_WORDS]))


def test_the_record_says_what_was_mapped(results):
    record = json.loads((results / "nih/run.json").read_text())
    of_rules = hashlib.sha256(Path(mappings.__file__).with_name("mappings.json").read_bytes()).hexdigest()
    assert record["mapping"] == {"option": "nih", "file": "mappings.json", "sha256": of_rules}
    made = {label: [word] for label, word in NIH_WORDS.items()}
    assert record["data"]["test"]["mapping"] == {"name": "nih", "labels": made}
    assert record["stages"]["predictions_test"]["inputs"]["mapping"] == {"name": "nih", "labels": made}
    own = json.loads((results / "own/run.json").read_text())
    assert own["mapping"] is None and "mapping" not in own["stages"]["predictions_test"]["inputs"]


def test_another_mapping_makes_the_predictions_again_and_the_same_does_not(world, tmp_path, capsys, monkeypatch):
    def lines() -> list[str]:
        assert evaluate(world, "nih", tmp_path / "r", "--map", "nih+approximate") == 0
        return capsys.readouterr().out.splitlines()

    first = lines()
    assert "mapping nih: Lung Opacity = Infiltration or Consolidation or Edema" in "\n".join(first)
    labels = set(pd.read_csv(tmp_path / "r/classification_test.csv")["label"])
    assert {"Mean (11 shared)", "Lung Opacity", "Lung Lesion", "Pleural Other"} <= labels
    assert any("predictions_test.csv: complete" in line for line in lines())
    rules = json.loads(mappings.FILE.read_text())
    rules["nih"]["rules"]["Lung Lesion"]["any_of"] = ["Nodule", "Hernia"]
    (tmp_path / "mappings.json").write_text(json.dumps(rules))
    monkeypatch.setattr(mappings, "FILE", tmp_path / "mappings.json")
    assert not any("predictions_test.csv: complete" in line for line in lines())


def test_a_mapping_in_place_of_the_own_labels_makes_the_predictions_again(world, tmp_path):
    for more, mean in ((["--map", "nih"], "Mean (8 shared)"), ([], "Mean (7)")):
        assert evaluate(world, "nih", tmp_path / "r", *more) == 0
        assert mean in set(pd.read_csv(tmp_path / "r/classification_test.csv")["label"])


def test_boxes_are_scored_under_the_words_of_the_data_set(world, tmp_path):
    folder = tmp_path / "results/patch"
    maps = ["--chexlocalize", world / "nih", "--no-pickles", "--protocols", "corrected"]
    assert evaluate(world, "nih", folder, "--map", "nih", *maps, "--heatmaps", "raw") == 0
    assert run(evalLocalization, folder, "--chexlocalize", world / "nih", "--resamples", 2, "--workers", 1) == 0
    hits = pd.read_csv(folder / "localization/corrected/raw/hitmiss_results_per_cxr.csv", dtype={"img_id": str})
    regions = json.loads((world / "nih/regions.json").read_text())
    for task in ("Cardiomegaly", "Effusion"):
        scored = set(hits.loc[hits[task].notna(), "img_id"])
        assert scored == {film for film, tasks in regions.items() if task in tasks} & set(hits["img_id"])
    assert hits[["Cardiomegaly", "Effusion"]].notna().to_numpy().any()
    assert run(makeReport, tmp_path / "results", "--gt-path", world / "nih/regions.json") == 0
    assert "Mean (8 shared)" in (tmp_path / "results/report/table1_per_label.csv").read_text()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--map", "nhi"], "'nhi': no such label mapping; known are nih, google_nih, mimic"),
        (["--map", "nih+all"], "'nih+all': no such label mapping"),
        (["--map", ""], "'': no such label mapping"),
        (["--map", "padchest"], "these are films of 'nih', not of 'padchest'; --map nih"),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_line(world, tmp_path, capsys, more, reason):
    assert evaluate(world, "nih", tmp_path / "r", *more) == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1
    assert not (tmp_path / "r/predictions_test.csv").exists()


def test_a_network_without_any_of_the_labels_is_one_line(world, tmp_path, capsys):
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("AP", "ICU"))
    save_model(model, tmp_path / "weights")
    command = ["--weights", tmp_path / "weights", "--data", world / "nih", "--map", "nih", "--output", tmp_path / "r"]
    assert run(evalClassification, *command, "--heatmaps", "none") == 2
    said = capsys.readouterr().err
    assert "mapping 'nih': makes 'No Finding', 'Cardiomegaly'" in said and "the network has none of them" in said
    assert said.count("\n") == 1


def test_a_mapping_needs_a_network_and_names_its_own_folder(world, capsys):
    with pytest.raises(SystemExit):
        evalClassification.main(["--predictions", str(world), "--map", "nih"])
    assert "--map needs --weights" in capsys.readouterr().err
    for more, name in (([], "weights"), (["--map", "nih"], "weights-nih")):
        args = evalClassification._parse(["--weights", str(world / "weights"), "--data", str(world), *more])
        assert args.output == Path("results") / name
