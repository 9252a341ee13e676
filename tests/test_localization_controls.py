"""Localization of whole results folders with its controls, from heat maps that are drawn: no network is needed."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
import evalLocalization
import makeReport
from benchmarks import pool_seeds
from cxr.files import write_json
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask
from cxr.tables import write_csv
from reporting.pictures import curves

TASKS = ("Edema", "Cardiomegaly")
SPLITS = {"val": 100, "test": 200}
METHODS = {"MedicalPatchNet": ("raw", "relative"), "EfficientNetB0": ("gradcam",)}
MODELS = {"MedicalPatchNet": (64, 512), "EfficientNetB0": (512, 512)}


def film_ids(split):
    """Six films of four patients."""
    return [f"patient{SPLITS[split] + i // 2 * (i < 4) + i * (i >= 4)}_study{i}_view1_frontal" for i in range(6)]


def write_run(root, seed):
    """`data/CheXlocalize` and `results/<model>`: maps are noise, a little higher inside the mask."""
    rng = np.random.default_rng(seed)
    for split in SPLITS:
        masks = {}
        for film in film_ids(split):
            masks[film] = {}
            for task in TASKS:
                y, x = rng.integers(0, 14, 2)
                mask = np.zeros((24, 20), dtype=bool)
                mask[y : y + 8, x : x + 6] = True
                masks[film][task] = encode_mask(mask)
                for model, methods in METHODS.items():
                    for method in methods:
                        folder = root / "results" / model / f"heatmaps/corrected/{split}/{method}"
                        write_heat_map(
                            folder / heat_map_name(film, task),
                            map=0.3 * mask + rng.random(mask.shape), probability=0.5, task=task, ground_truth=1,
                            film_size=(20, 24), film_pixels=mask,
                        )  # fmt: skip
        write_json(root / f"data/CheXlocalize/CheXlocalize/gt_segmentations_{split}.json", masks)
        paths = [f"{split}/{film.replace('_', '/', 2)}.jpg" for film in film_ids(split)]
        labels = pd.DataFrame(0.0, index=range(6), columns=list(CHEXPERT.names))
        table = pd.DataFrame({"Path": paths, "View": "AP"}).join(labels)
        write_csv(root / f"data/CheXlocalize/CheXpert/{split}_labels.csv", table)
    (root / "results/MedicalPatchNet/reference.npz").write_bytes(b"of the validation films")
    facts = {"label_set": CHEXPERT.to_json()}
    for model, (patch, image) in MODELS.items():
        write_json(root / "results" / model / "run.json", facts | {"model": {"patch_size": patch, "image_size": image}})


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Pictures of curves take most of the time and say nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw_miou_curves", lambda folder: Image.new("L", (9, 9)).save(folder / "miou_curve.png"))
        yield


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    root = tmp_path_factory.mktemp("run") / "seed0"
    write_run(root, 0)
    assert localize(root) == 0
    return root


@pytest.fixture
def run(scored, tmp_path):
    shutil.copytree(scored, tmp_path / "seed0")
    return tmp_path / "seed0"


def localize(root, *more):
    models = [root / "results" / model for model in METHODS]
    command = [*models, "--chexlocalize", root / "data/CheXlocalize", "--resamples", 30, "--workers", 1, *more]
    return cli.guarded(evalLocalization.main, [str(argument) for argument in command])


def contents(root):
    paths = (root / "results").glob("*/localization/**/*.csv")
    return {path.relative_to(root): path.read_bytes() for path in paths}


def test_every_protocol_and_method_has_its_controls(scored):
    for model, methods in METHODS.items():
        folder = scored / "results" / model / "localization/corrected"
        baselines = pd.read_csv(folder / "baselines.csv", keep_default_na=False)
        found = set(zip(baselines["control"], baselines["method"], baselines["metric"], strict=True))
        expected = {(c, "", metric) for c in ("chance", "centre", "prior") for metric in ("hit_rate", "iou")}
        for method in methods:
            expected |= {("shuffled", method, metric) for metric in ("hit_rate", "iou")}
            expected |= {(control, method, "hit_rate") for control in ("with_prior", "shuffled_with_prior")}
            assert list(pd.read_csv(folder / method / "by_size.csv")["size"][:4]) == ["<1%", "1-3%", "3-10%", ">10%"]
        assert found == expected and set(baselines["name"]) == {*TASKS, "Mean"}
        assert set(pd.read_csv(folder / "added_value.csv")["method"]) == set(methods)


def test_the_posterior_hits_where_relative_maps_times_the_prior_do(scored):
    folder = scored / "results/MedicalPatchNet/localization/corrected"
    posterior = pd.read_csv(folder / "posterior/hitmiss_results_per_cxr.csv").set_index("img_id")
    cells = pd.read_csv(folder / "relative/controls_per_film.csv")
    assert len(cells) == 12
    for film, task, hit in zip(cells["img_id"], cells["task"], cells["with_prior_hit"], strict=True):
        assert posterior.loc[film, task] == hit
    assert not (folder / "posterior/controls_per_film.csv").exists()
    assert not (scored / "results/EfficientNetB0/localization/corrected/posterior").exists()


def test_what_is_complete_stays(run, capsys):
    before = contents(run)
    assert localize(run) == 0
    said = capsys.readouterr().out
    assert contents(run) == before and "tuning" not in said and "never saw the film\n" not in said
    assert said.count(": complete") == 7  # four methods, two tables of controls, the differences
    assert "corrected: hit rate, not above the location prior: " in said and "hit rate of maps × prior: " in said


@pytest.mark.parametrize("change", ["a view", "a mask", "a map", "the seed", "a table of controls", "the floor"])
def test_controls_are_made_again_when_what_they_are_made_of_changes(run, capsys, change):
    folder, more = run / "results/MedicalPatchNet", []
    if change == "a view":
        table = run / "data/CheXlocalize/CheXpert/test_labels.csv"
        table.write_text(table.read_text().replace("AP", "LL", 1))
    elif change == "a mask":
        path = run / "data/CheXlocalize/CheXlocalize/gt_segmentations_val.json"
        masks = json.loads(path.read_text())
        masks[film_ids("val")[0]]["Edema"] = encode_mask(np.eye(24, 20))
        write_json(path, masks)
    elif change == "a map":
        maps = folder / "heatmaps/corrected/test/raw"
        first, second = sorted(maps.iterdir())[:2]
        first.touch()
    elif change == "the seed":
        more = ["--seed", "5"]
    elif change == "a table of controls":
        (folder / "localization/corrected/baselines.csv").write_text("")
    else:
        (folder / "localization/corrected/relative/prior_floor.csv").unlink()
    before = contents(run)
    assert localize(run, *more) == 0
    said = capsys.readouterr().out
    remade = {"a map": ["corrected/raw: tuning"], "the floor": ["corrected/relative: tuning"]}
    remade |= {"a table of controls": ["baselines.csv: maps that never saw the film"]}
    for words in remade.get(change, ["raw: tuning", "posterior: tuning", "baselines.csv: maps", "gradcam: tuning"]):
        assert words in said
    after = contents(run)
    name = "results/MedicalPatchNet/localization/corrected/baselines.csv"
    (path,) = [path for path in after if path.as_posix() == name]
    assert after[path] and (after[path] != before.get(path)) == (change not in ("a map", "the floor"))


def test_intervals_over_patients_reach_every_table(run):
    assert localize(run, "--resample-unit", "patient") == 0
    by_patient = contents(run)
    assert localize(run) == 0
    by_film = contents(run)
    differing = {path.name for path in by_film if by_film[path] != by_patient[path]}
    assert {"baselines.csv", "added_value.csv", "by_size.csv", "hitmiss_summary_results.csv"} <= differing
    assert "hitmiss_results_per_cxr.csv" not in differing and "prior_floor.csv" not in differing


def test_unknown_patients_are_told_before_any_work(tmp_path, capsys):
    write_run(tmp_path, 0)
    path = tmp_path / "data/CheXlocalize/CheXlocalize/gt_segmentations_test.json"
    masks = json.loads(path.read_text())
    write_json(path, {film.replace("patient", "film"): regions for film, regions in masks.items()})
    assert localize(tmp_path, "--resample-unit", "patient") == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "its patient is unknown" in said.err and said.out == ""


def test_without_a_validation_outline_there_is_no_prior_and_the_rest_is_scored(run, capsys):
    path = run / "data/CheXlocalize/CheXlocalize/gt_segmentations_val.json"
    empty = {task: encode_mask(np.zeros((24, 20))) for task in TASKS}
    write_json(path, dict.fromkeys(film_ids("val"), empty))
    shutil.rmtree(run / "results/MedicalPatchNet/localization/corrected/posterior")
    assert localize(run) == 0
    folder = run / "results/MedicalPatchNet/localization/corrected"
    rows = pd.read_csv(folder / "baselines.csv", keep_default_na=False)
    prior = rows[(rows["control"] == "prior") & (rows["name"] == "Edema")]
    assert set(prior["value"]) == {""} and prior["note"].str.contains("no validation film").all()
    assert (rows[rows["control"] == "centre"]["value"] != "").any()
    assert not (folder / "posterior").exists()


def test_the_report_shows_the_controls_beside_the_methods(run, capsys):
    assert cli.guarded(makeReport.main, [str(run / "results")]) == 0
    said = capsys.readouterr().out
    assert "Control: Location prior" in said and "Do not beat the location prior in hit rate: " in said
    report = run / "results/report"
    baselines = pd.read_csv(run / "results/MedicalPatchNet/localization/corrected/baselines.csv", keep_default_na=False)
    means = baselines[(baselines["name"] == "Mean") & (baselines["metric"] == "hit_rate")]
    value = {(c, m): f"{float(v):.3f}" for c, m, v in means[["control", "method", "value"]].to_numpy()}
    table2 = (report / "table2_corrected.md").read_text()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in table2.splitlines() if line.startswith("| ")}
    columns = [cell.strip() for cell in rows["Pathology"]]
    raw, gradcam = columns.index("MedicalPatchNet (Raw)"), columns.index("Grad-CAM")
    assert rows["Location prior"][raw].strip() == rows["Location prior"][gradcam].strip() == value["prior", ""]
    assert rows["Another film's map"][raw].strip() == value["shuffled", "raw"]
    assert rows["Map × prior"][raw].strip() == value["with_prior", "raw"]
    assert "Controls, means, not in the paper" in table2 and "not an explanation of the network" in table2
    page = (report / "report.html").read_text()
    for words in ("Controls of localization, corrected", "Added value over the location prior", "by lesion size"):
        assert words in page
    assert "Location prior" in (report / "table2_corrected.csv").read_text()


def test_seeds_are_pooled_over_films_and_drawn_by_patient(run, tmp_path, capsys):
    write_run(tmp_path / "seed1", 1)
    options = ["--resamples", "40", "--workers", "1", "--out", str(tmp_path / "pooled.csv")]
    assert pool_seeds.main([str(run), str(tmp_path / "seed1"), *options]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "pooled.csv", keep_default_na=False)
    files = [folder / "results/MedicalPatchNet/localization/corrected" for folder in (run, tmp_path / "seed1")]
    hits = [pd.read_csv(file / "relative/hitmiss_results_per_cxr.csv")[list(TASKS)] for file in files]
    values = {"seed0": hits[0], "seed1": hits[1], "pooled": pd.concat(hits)}
    assert "no audit of every seed" in said
    rows = table[(table["metric"] == "hit_rate") & (table["row"] == "relative") & (table["against"] == "")]
    assert dict(zip(rows["seed"], rows["value"].astype(float), strict=True)) == pytest.approx(
        {seed: films.mean().mean() for seed, films in values.items()}
    )
    for seed, file in zip(("seed0", "seed1"), files, strict=True):
        added = pd.read_csv(file / "added_value.csv").set_index(["method", "a", "b", "metric", "name"])
        row = table[(table["seed"] == seed) & (table["row"] == "raw with_prior") & (table["against"] == "prior")]
        assert float(row["value"].iloc[0]) == pytest.approx(
            added.loc[("raw", "with_prior", "prior", "hit_rate", "Mean"), "difference"], abs=1e-8
        )
    assert "| Location prior |" in said and "| hit rate: MedicalPatchNet (Relative) − Location prior |" in said


def test_the_audits_of_the_seeds_are_pooled_too(run, tmp_path, capsys):
    """Means over films, then over labels; hits of the signed CAM stand beside those of the heat maps."""
    write_run(tmp_path / "seed1", 1)
    options = ["--resamples", "40", "--workers", "1", "--out", str(tmp_path / "pooled.csv")]
    rng, audits = np.random.default_rng(0), []
    for folder in (run, tmp_path / "seed1"):
        keys = [(film, label, method) for film in film_ids("test") for label in TASKS for method in ("cam", "gradcam")]
        audit = pd.DataFrame(keys, columns=["Film", "label", "method"])
        numbers = rng.normal(size=(len(audit), 2))
        audit = audit.assign(**{"correlation black": numbers[:, 0], "deletion_gain mean": numbers[:, 1]})
        audit = audit.assign(hit=rng.integers(0, 2, len(audit)), note="")
        audit.loc[0, "deletion_gain mean"] = np.nan
        write_csv(folder / "results/EfficientNetB0/faithfulness/films_test.csv", audit)
        audits.append(audit)
    assert pool_seeds.main([str(run), str(tmp_path / "seed1"), *options]) == 0
    table = pd.read_csv(tmp_path / "pooled.csv", keep_default_na=False)
    both = pd.concat(audits)
    for metric, column in (("correlation black",) * 2, ("deletion_gain mean",) * 2, ("hit_rate", "hit")):
        own = both[both["method"] == "cam"].groupby("label")[column].mean().mean()
        found = table[(table["metric"] == metric) & (table["row"] == "cam") & (table["seed"] == "pooled")]
        found = found[found["against"] == ""]
        assert found["value"].astype(float).tolist() == pytest.approx([own])
        assert (found["ci_low"].astype(float) < own).all() and (own < found["ci_high"].astype(float)).all()
    wide = both.pivot_table(index="label", columns="method", values="correlation black")
    row = table[(table["row"] == "cam") & (table["against"] == "gradcam") & (table["metric"] == "correlation black")]
    assert float(row[row["seed"] == "pooled"]["value"].iloc[0]) == pytest.approx((wide["cam"] - wide["gradcam"]).mean())
    said = capsys.readouterr().out
    assert "| rank correlation with the effect of occlusion, black |" in said and "| Signed CAM |" in said
