"""evalFaithfulness.py on results of tiny networks: its numbers against explicit forward passes, resuming, bad input."""

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

import cli
import evalClassification
import evalFaithfulness
import evalLocalization
from cxr.dataset import network_input
from cxr.files import write_json
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.images import open_film
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask, read_ground_truth
from evaluation.audit.faithfulness_tables import CropMask
from models.checkpoint import build_model, load_model, save_model
from reporting.pictures import curves
from saliency.audit import curve_passes
from saliency.audit.audit_maps import AuditSource
from saliency.audit.curve_files import write_curves
from saliency.audit.curve_passes import random_order
from saliency.evidence.evidence_folders import heat_map_source
from saliency.patch_maps import patch_maps
from tests.films import alternating_labels, film_pixels, write_labels
from tests.networks import calibrate

FILMS, WIDTH, HEIGHT = 6, 80, 64  # the crop is 64 x 64, the networks' image size
LABELS = ("Edema", "Lung Opacity")
TASKS = tuple(map(CHEXPERT.task_of, LABELS))
FIRST = {"val": 64541, "test": 64741}
SPLIT_FOLDER = {"val": "CheXpert-v1.0/valid", "test": "test"}


def write_films(root: Path, folder_of: dict[str, str]) -> None:
    """Films of blurred noise with their label tables, as CheXlocalize has them or as copies."""
    for split, first in FIRST.items():
        for i in range(FILMS):
            path = root / folder_of[split] / f"patient{first + i}/study1/view1_frontal.png"
            path.parent.mkdir(parents=True)
            pixels = film_pixels(HEIGHT * 4, WIDTH * 4, seed=first + i)
            Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(path)


@pytest.fixture(scope="module")
def chexlocalize(tmp_path_factory):
    root = tmp_path_factory.mktemp("chexlocalize")
    write_films(root, {"val": "CheXpert/val", "test": "CheXpert/test"})
    for split, first in FIRST.items():
        names = [f"patient{first + i}/study1/view1_frontal" for i in range(FILMS)]
        masks = {}
        for i, name in enumerate(names):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[8 * i : 8 * i + 20, 20:50] = True
            found = alternating_labels(FILMS)[i]
            masks[name.replace("/", "_")] = {
                CHEXPERT.task_of(label): encode_mask(mask * bool(found[CHEXPERT.index(label)])) for label in LABELS
            }
        paths = [f"{SPLIT_FOLDER[split]}/{name}.png" for name in names]
        write_labels(root / f"CheXpert/{split}_labels.csv", paths, alternating_labels(FILMS), split == "val")
        write_json(root / f"CheXlocalize/gt_segmentations_{split}.json", masks)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory, chexlocalize):
    root = tmp_path_factory.mktemp("data")
    write_films(root, {"val": "valid", "test": "test"})
    shutil.copy(chexlocalize / "CheXpert/val_labels.csv", root / "valid.csv")
    shutil.copy(chexlocalize / "CheXpert/test_labels.csv", root / "test_labels.csv")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, patch_size, seed in (("patch", 32, 0), ("baseline", 64, 1)):
        torch.manual_seed(seed)
        model = build_model("timm/test_efficientnet", patch_size=patch_size, image_size=64, labels=LABELS)
        calibrate(model, images)
        save_model(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, data, chexlocalize, weights):
    root = tmp_path_factory.mktemp("results")
    for name in ("patch", "baseline"):
        command = ["--weights", weights / name, "--data", data, "--chexlocalize", chexlocalize, "--output", root / name]
        command += ["--no-pickles", "--steps-per-patch", 4, "--resamples", 20, "--workers", 0]
        assert cli.guarded(evalClassification.main, list(map(str, command))) == 0
    return root


@pytest.fixture(scope="module")
def audited(evaluated, chexlocalize, tmp_path_factory):
    root = tmp_path_factory.mktemp("audited") / "results"
    shutil.copytree(evaluated, root)
    assert audit(root / "patch", root / "baseline", "--chexlocalize", chexlocalize) == 0
    return root


def audit(*arguments) -> int:
    quick = [] if "--resamples" in arguments else ["--resamples", "20"]
    return cli.guarded(evalFaithfulness.main, [*map(str, arguments), *quick, "--workers", "1"])


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / f"faithfulness/{name}_test.csv")


def explicit_drops(model, image: torch.Tensor, grey: float) -> np.ndarray:
    """(C, 2, 2): the logits of a film less those of the film with a quarter filled."""
    with torch.no_grad():
        whole = model(image[None])[0]
        drops = []
        for row in (0, 32):
            for column in (0, 32):
                dark = image.clone()
                dark[0, row : row + 32, column : column + 32] = grey
                drops.append(whole - model(dark[None])[0])
    return torch.stack(drops).T.reshape(-1, 2, 2).double().numpy()


@pytest.mark.parametrize("name", ["patch", "baseline"])
def test_correlations_are_those_with_explicit_forward_passes(audited, weights, chexlocalize, name):
    """Black and mean, of the raw map or the CAM, whose means over quarters are taken by reshaping the crop's map."""
    model = load_model(weights / name)
    films = table(audited / name, "films")
    checked = 0
    for path in sorted((chexlocalize / "CheXpert/test").rglob("*.png")):
        image, _ = network_input(open_film(path), 64)
        film_id = "_".join(path.with_suffix("").parts[-3:])
        for fill, grey in (("black", 0.0), ("mean", float(image.mean()))):
            drops = explicit_drops(model, image, grey)
            for output, label in enumerate(model.labels):
                method, maps = _map_of(model, image, name)
                means = maps[output].double().reshape(2, 32, 2, 32).mean(dim=(1, 3)).numpy()
                row = films[(films["Film"] == film_id) & (films["label"] == label) & (films["method"] == method)]
                expected = spearmanr(means.ravel(), drops[output].ravel()).statistic
                assert row[f"correlation {fill}"].item() == pytest.approx(expected, abs=1e-6)
                top = drops[output].ravel()[means.argmax()] == drops[output].max()
                assert row[f"top1 {fill}"].item() == float(top)
                checked += 1
    assert checked == FILMS * 2 * len(LABELS)


def _map_of(model, image, name):
    if name == "patch":
        return "raw", patch_maps(model, image, steps_per_patch=4, protocol="corrected", batch_size=4)["raw"]
    with torch.no_grad():
        cam = torch.einsum("ck,khw->chw", model.head.weight, model.feature_map(image[None])[0])
    return "cam", torch.nn.functional.interpolate(cam[None], (64, 64), mode="bilinear", align_corners=False)[0]


def test_patch_evidence_says_exactly_what_occlusion_does(audited):
    films = table(audited / "patch", "films")
    own = films[films["method"] == "patches"]
    for measure in ("correlation", "top1", "deletion", "insertion"):
        for fill in ("black", "mean"):
            assert own[f"{measure} {fill}"].to_numpy() == pytest.approx(1)
    relative = films[films["method"] == "patches_relative"]
    assert relative["correlation validation"].to_numpy() == pytest.approx(1)
    assert relative["infidelity validation"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_the_signed_cam_is_compared_with_the_mean_of_its_view(audited, weights, chexlocalize):
    from saliency.audit.occlusion import signed_cam

    model = load_model(weights / "baseline")
    read = [network_input(open_film(p), 64)[0] for p in sorted((chexlocalize / "CheXpert/val").rglob("*.png"))]
    mean = np.mean([signed_cam(model, image) for image in read], axis=0)
    source = AuditSource(audited / "baseline", side=2, image_size=64, tasks=TASKS, forward=True)
    film = source.film(source.film_ids[0])
    path = chexlocalize / "CheXpert/test" / film.film_id.replace("_study1_", "/study1/")
    cam = signed_cam(model, network_input(open_film(path.with_suffix(".png")), 64)[0])
    maps = source.evidence(film, TASKS[0]).maps
    upsampled = torch.nn.functional.interpolate(torch.from_numpy(cam - mean)[None], (64, 64), mode="bilinear")[0]
    np.testing.assert_allclose(maps["cam_relative"], upsampled[0].numpy(), atol=1e-5)
    assert source.methods == ["gradcam", "gradcam++", "eigencam", "cam", "cam_relative"]
    assert any("the reference of all views is the mean of 6 films" in line for line in source.lines)


def test_tables_of_both_networks(audited):
    for name, methods in (("patch", ["patches", "patches_relative", "scaled", "raw", "relative"]),
                          ("baseline", ["gradcam", "gradcam++", "eigencam", "cam", "cam_relative"])):  # fmt: skip
        summary = table(audited / name, "faithfulness")
        assert set(summary["method"].dropna()) == {*methods, "chance"} and set(summary["label"]) == {*LABELS, "Mean"}
        assert {"energy", "auroc", "auprc", "border", "outside", "correlation", "top1"} <= set(summary["metric"])
        values = summary[["ci_low", "value", "ci_high"]].dropna()
        assert (values["ci_low"] <= values["ci_high"]).all() and len(values) > 50
    reasons = table(audited / "baseline", "faithfulness").query("metric == 'deletion'")["note"].tolist()
    assert len(reasons) == 1 and reasons[0].startswith("needs the best order, which is known only of a logit that is")
    for name, curves_of in (("patch", 7), ("baseline", 6)):  # chance besides, and of the patch network the best order
        curves = table(audited / name, "curves")
        ends = curves[(curves["label"] == "Mean") & (curves["fill"] == "black") & (curves["patches"] == 4)]["deletion"]
        assert np.ptp(ends) < 1e-6 and len(ends) == curves_of  # whatever the order, all patches are filled in the end


def test_hits_are_those_of_localization(audited, chexlocalize, tmp_path, monkeypatch):
    """Of heat maps, which it scores; the audit gives those of the signed CAM, which it does not know."""
    picture = Image.new("L", (9, 9))  # drawing curves takes most of the time
    monkeypatch.setattr(curves, "draw_miou_curves", lambda folder: picture.save(folder / "miou_curve.png"))
    results = copied(audited / "baseline", tmp_path / "baseline")
    command = [results, "--chexlocalize", chexlocalize, "--resamples", 5, "--workers", 1]
    assert cli.guarded(evalLocalization.main, [*map(str, command)]) == 0
    source = AuditSource(results, side=2, image_size=64, tasks=TASKS, forward=True)
    truth = read_ground_truth(chexlocalize / "CheXlocalize/gt_segmentations_test.json")
    checked = []
    for method in ("gradcam", "gradcam++", "eigencam"):
        hits = pd.read_csv(results / f"localization/corrected/{method}/hitmiss_results_per_cxr.csv").set_index("img_id")
        for film_id, task in itertools.product(source.film_ids, TASKS):
            film = source.film(film_id)
            if truth.area(film_id, task):
                mask = CropMask.of(truth, film_id, task, 64)
                checked.append(mask.hit(source.evidence(film, task).maps[method]) == hits.loc[film_id, task])
    assert all(checked) and len(checked) == 3 * FILMS  # of 6 films and 2 labels, half have the finding
    hits = table(results, "films").set_index("method")["hit"]
    assert hits["cam_relative"].notna().sum() == hits["chance"].notna().sum() == FILMS and hits["gradcam"].isna().all()


def test_curves_of_the_baseline_are_those_of_explicit_forward_passes(audited, weights, chexlocalize):
    """Film by film and patch by patch; only of films with the finding, in the order of the map's means."""
    model = load_model(weights / "baseline")
    films = table(audited / "baseline", "films").set_index(["Film", "label", "method"])
    checked = 0
    for path in sorted((chexlocalize / "CheXpert/test").rglob("*.png")):
        image, _ = network_input(open_film(path), 64)
        film_id = "_".join(path.with_suffix("").parts[-3:])
        means = _map_of(model, image, "baseline")[1].double().reshape(-1, 2, 32, 2, 32).mean(dim=(2, 4))  # (C, 2, 2)
        for output, label in enumerate(model.labels):
            found = films.loc[(film_id, label, "cam")]
            if not alternating_labels(FILMS)[int(film_id[7:12]) - FIRST["test"]][CHEXPERT.index(label)]:
                assert np.isnan(found["deletion_gain black"])
                continue
            order = np.argsort(-means[output].flatten().numpy(), kind="stable")
            for fill, grey in (("black", 0.0), ("mean", float(image.mean()))):
                drawn = random_order(film_id, 4, seed=0)
                own, *random = (_explicit_areas(model, image, o, grey, output) for o in (order, drawn, drawn[::-1]))
                gain = own - np.mean(random, axis=0)
                assert found[f"deletion_gain {fill}"] == pytest.approx(-gain[0], abs=1e-5)
                assert found[f"insertion_gain {fill}"] == pytest.approx(gain[1], abs=1e-5)
                checked += 1
    assert checked >= FILMS
    assert films["deletion_gain mean"].xs("chance", level="method").notna().sum() * 2 == checked


def _explicit_areas(model, image: torch.Tensor, order, grey: float, output: int) -> np.ndarray:
    """(2,): of deletion and insertion."""
    areas = []
    for kept, first in ((image, torch.full_like(image, grey)), (torch.full_like(image, grey), image)):
        curve = []
        for count in range(5):  # the first `count` quarters come from `first`, the others from `kept`
            film = kept.clone()
            for place in order[:count]:
                rows, columns = (slice(32 * start, 32 * start + 32) for start in divmod(int(place), 2))
                film[0, rows, columns] = first[0, rows, columns]
            with torch.no_grad():
                curve.append(float(model(film[None])[0, output] - model(image[None])[0, output]))
        areas.append(np.trapezoid(curve, dx=1 / 4))
    return np.array(areas)


def test_curves_by_forward_passes_are_of_as_many_films_as_are_asked_for(audited, chexlocalize, tmp_path):
    """More films later are added to those that are there, and the tables are then those of the whole at once."""
    results = copied(audited / "baseline", tmp_path / "baseline")
    folder = results / "faithfulness/curves/test"
    shutil.rmtree(folder)
    assert audit(results, "--chexlocalize", chexlocalize, "--curve-films", 0) == 0
    assert not folder.exists()
    reasons = table(results, "faithfulness").query("metric == 'deletion_gain'")["note"].tolist()
    assert len(reasons) == 1 and "--curve-films above 0" in reasons[0]
    assert audit(results, "--chexlocalize", chexlocalize, "--curve-films", 2) == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 2
    summary = table(results, "faithfulness").query("metric == 'insertion_gain' and method == 'cam'")
    assert set(summary[summary["label"] != "Mean"]["films"]) == {2}
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times and len(list(folder.iterdir())) == FILMS // 2
    for name in ("faithfulness", "curves", "films"):
        own, whole = (r / f"faithfulness/{name}_test.csv" for r in (results, audited / "baseline"))
        assert own.read_bytes() == whole.read_bytes()


def test_a_run_that_stops_between_two_films_goes_on_and_ends_with_the_same_bytes(
    audited, chexlocalize, tmp_path, monkeypatch
):
    """No forward pass depends on which films are left."""
    results, written = copied(audited / "baseline", tmp_path / "baseline"), []
    shutil.rmtree(results / "faithfulness/curves")

    def interrupted(path: Path, film) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write_curves(path, film)

    monkeypatch.setattr(curve_passes, "write_curves", interrupted)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        audit(results, "--chexlocalize", chexlocalize)
    (only,) = (results / "faithfulness/curves/test").iterdir()
    time_of_first = only.stat().st_mtime_ns
    monkeypatch.setattr(curve_passes, "write_curves", write_curves)
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert only.stat().st_mtime_ns == time_of_first
    for path in (audited / "baseline/faithfulness").rglob("*.*"):
        assert (results / path.relative_to(audited / "baseline")).read_bytes() == path.read_bytes()


def test_a_damaged_file_of_curves_is_made_again_or_refused(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    damaged = sorted((results / "faithfulness/curves/test").iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert damaged.read_bytes() == whole


def test_what_is_complete_is_not_made_again_and_a_lost_file_is(audited, chexlocalize, tmp_path, capsys):
    results = copied(audited, tmp_path / "results")
    before = {path: path.read_bytes() for path in results.rglob("faithfulness/**/*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in before}
    assert audit(results / "patch", results / "baseline", "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == times
    assert capsys.readouterr().out.count("faithfulness: complete") == 2
    lost = [path for path in before if path.name in ("faithfulness_test.csv", "patient64743_study1_view1_frontal.npz")]
    assert len(lost) == 4  # tables of both networks; effects and curves of a film
    for path in lost:
        path.unlink()
    assert audit(results / "patch", results / "baseline", "--chexlocalize", chexlocalize) == 0
    assert {path: path.read_bytes() for path in before} == before
    kept = [path for path in before if path.suffix == ".npz" and path not in lost]
    assert kept and all(path.stat().st_mtime_ns == times[path] for path in kept)


def test_a_baseline_alone_is_audited_on_the_patches_that_it_was_audited_on(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    before = {path: path.stat().st_mtime_ns for path in results.rglob("faithfulness/**/*") if path.is_file()}
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_without_masks_and_without_weights_the_rest_is_said(evaluated, tmp_path, capsys):
    results = copied(evaluated / "patch", tmp_path / "patch")
    record = json.loads((results / "run.json").read_text())
    record["weights"]["path"] = str(tmp_path / "gone")
    (results / "run.json").write_text(json.dumps(record))
    assert audit(results) == 0
    assert "no outlines of findings" in capsys.readouterr().out
    summary = table(results, "faithfulness")
    assert not {"energy", "auroc", "auprc"} & set(summary["metric"]) and set(summary["fill"].dropna()) == {
        "none",
        "validation",
    }
    exact = summary[
        (summary["method"] == "patches") & (summary["metric"] == "correlation") & (summary["fill"] == "none")
    ]
    assert exact["value"].tolist() == pytest.approx([1, 1, 1])


def test_without_masks_curves_are_those_of_the_films_with_the_finding(audited, chexlocalize, tmp_path, capsys):
    """Films and labels without outlines: effects and curves stay the same here, where outlined is what is there."""
    films, results = copied(chexlocalize, tmp_path / "films"), copied(audited / "baseline", tmp_path / "baseline")
    shutil.rmtree(films / "CheXlocalize")
    assert audit(results, "--chexlocalize", films) == 0
    assert "no outlines of findings" in capsys.readouterr().out
    own, whole = (table(folder, "films") for folder in (results, audited / "baseline"))
    assert {"energy", "auroc", "auprc", "hit"} <= set(whole) - set(own)
    pd.testing.assert_frame_equal(own, whole[list(own)])
    assert own["deletion_gain black"].notna().any()


def test_pickles_are_audited_by_forward_passes(audited, evaluated, chexlocalize, tmp_path, capsys):
    """The maps of the evidence files, written as pickles; there are no patch logits then."""
    results = copied(evaluated / "patch", tmp_path / "patch")
    source = heat_map_source(results, "corrected", "test", "raw", TASKS)
    for film_id, task in source.entries:
        found = source.load(film_id, task)
        write_heat_map(
            results / f"heatmaps/corrected/test/raw/{heat_map_name(film_id, task)}",
            map=found.map, probability=found.probability, task=task, ground_truth=found.ground_truth,
            film_size=found.film_size, film_pixels=source.film_pixels(film_id),
        )  # fmt: skip
    shutil.rmtree(results / "evidence")
    record = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps(record | {"stages": {}}))
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    keys = ["Film", "label"]
    made, expected = (table(r, "films").query("method == 'raw'").set_index(keys) for r in (results, audited / "patch"))
    for measure in ("correlation black", "top1 mean", "infidelity mean", "border", "outside"):
        np.testing.assert_allclose(made[measure], expected.loc[made.index, measure], atol=2e-3)
    np.testing.assert_allclose(made["auroc"].dropna(), expected["auroc"].dropna(), atol=1e-6)
    small = min((results / "heatmaps").rglob("*_map.pkl"))
    task = small.name.removesuffix("_map.pkl").rpartition("_")[2]
    write_heat_map(small, map=np.ones((8, 10)), probability=0.5, task=task, ground_truth=1, film_size=(80, 64),
                   film_pixels=np.ones((8, 10)))  # fmt: skip
    said = refused(capsys, results, "--chexlocalize", chexlocalize)
    assert "patient64741_study1_view1_frontal: 8 px where the network has 64; export the heat maps again" in said


def test_a_baseline_without_films_has_no_effects_and_says_so(evaluated, tmp_path, capsys):
    results = copied(evaluated / "baseline", tmp_path / "baseline")
    assert audit(results) == 0
    assert "no effects of occlusion: they need forward passes of the films; --chexlocalize is not given" in (
        capsys.readouterr().out
    )
    undefined = {"deletion", "insertion", "deletion_gain", "insertion_gain", "gridpg"}
    assert set(table(results, "faithfulness")["metric"]) == {"border", "outside"} | undefined


def refused(capsys, *arguments) -> str:
    """The one line that it is refused with."""
    try:
        assert audit(*arguments) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


@pytest.mark.parametrize("fill", ["1.5", "-0.2", "nan", "white", ""])
def test_a_fill_that_is_no_grey_value_is_refused(evaluated, capsys, fill):
    assert "--fills" in refused(capsys, evaluated / "patch", f"--fills={fill}")


def test_weights_of_no_folder_are_refused(evaluated, weights, capsys):
    line = refused(capsys, evaluated / "patch", "--weights", weights / "baseline")
    assert "none of the results folders was made with these weights" in line


def test_a_reference_of_other_weights_is_refused(evaluated, tmp_path, capsys):
    results = copied(evaluated / "patch", tmp_path / "patch")
    with np.load(results / "reference.npz") as stored:
        arrays = dict(stored)
    facts = json.loads(str(arrays["facts"]))
    arrays["facts"] = np.array(json.dumps(facts | {"weights": "b" * 64}))
    np.savez(results / "reference.npz", **arrays)
    assert "reference of relative maps are missing or changed" in refused(capsys, results)
    record = json.loads((results / "run.json").read_text())
    del record["stages"]["reference"]
    (results / "run.json").write_text(json.dumps(record))
    assert "evidence of another network or setting than reference.npz" in refused(capsys, results)


def test_a_folder_that_does_not_say_its_network_is_refused(evaluated, tmp_path, capsys):
    results = copied(evaluated / "patch", tmp_path / "patch")
    record = json.loads((results / "run.json").read_text())
    sizes = record["model"] | {"patch_size": "64"}
    for broken in ({"stages": []}, {"stages": {"x": {"options": 3}}}, {"weights": "x"}, {"model": sizes}, {"model": 1}):
        (results / "run.json").write_text(json.dumps(record | broken))
        assert "does not say which network made these results" in refused(capsys, results)
    (results / "run.json").unlink()
    assert "does not say which network made these results" in refused(capsys, results)
    assert "does not say which network" in refused(capsys, tmp_path / "nothing")


def test_films_without_maps_or_maps_without_films_are_refused(evaluated, chexlocalize, tmp_path, capsys):
    films = copied(chexlocalize, tmp_path / "films")
    labels = films / "CheXpert/test_labels.csv"
    labels.write_text("\n".join(labels.read_text().splitlines()[:-1]) + "\n")
    line = refused(capsys, copied(evaluated / "baseline", tmp_path / "baseline"), "--chexlocalize", films)
    assert "no film 'patient64746_study1_view1_frontal', which the folder has heat maps of" in line
    results = copied(evaluated / "patch", tmp_path / "patch")
    next((results / "evidence/test").iterdir()).unlink()
    assert "heat maps of test are missing or changed (1 of 6 files" in refused(capsys, results)


def test_a_damaged_file_of_forward_passes_is_made_again(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    damaged = sorted((results / "faithfulness/films/test").iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert damaged.stat().st_size > len(whole) // 2


# ----------------------------------------------------------------------------------------------------- the causal test


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Four pairs of noise films; the finding is a bright square in the upper left quarter of the crop."""
    folder = tmp_path_factory.mktemp("pairs")
    rows, listed, regions = [], [], {}
    for number in range(4):
        pixels = np.array(Image.fromarray(film_pixels(HEIGHT * 4, WIDTH * 4, seed=number)).resize((WIDTH, HEIGHT)))
        ids = [f"film{number}_with", f"film{number}_without"]
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[4 + number : 24, 12:30] = True
        (folder / "films").mkdir(exist_ok=True)
        for film_id, image in zip(ids, (np.where(mask, 230, pixels), pixels), strict=True):
            Image.fromarray(image.astype(np.uint8)).save(folder / f"films/{film_id}.png")
            facts = {"Path": f"films/{film_id}.png", "Film": film_id, "Patient": f"patient{number}", "View": "PA"}
            rows.append(facts | {"Split": "test"} | dict.fromkeys(CHEXPERT.names, int(film_id == ids[0])))
        listed.append([*ids, LABELS[0], TASKS[0]])
        regions[ids[0]] = {TASKS[0]: encode_mask(mask)}
    pd.DataFrame(rows).to_csv(folder / "films.csv", index=False)
    pd.DataFrame(listed, columns=["with", "without", "label", "mask"]).to_csv(folder / "pairs.csv", index=False)
    write_json(folder / "regions.json", regions)
    return folder


def test_the_causal_test_is_that_of_explicit_passes_of_both_films(audited, weights, pairs, tmp_path):
    results = copied(audited, tmp_path / "results")
    assert audit(results / "patch", results / "baseline", "--pairs", pairs) == 0
    for name in ("patch", "baseline"):
        model = load_model(weights / name)
        rows = pd.read_csv(results / name / "faithfulness/pair_films.csv").set_index(["Film", "method"])
        for number in range(4):
            images = [network_input(open_film(pairs / f"films/film{number}_{kind}.png"), 64)[0]
                      for kind in ("with", "without")]  # fmt: skip
            with torch.no_grad():
                logits = [float(model(image[None])[0, 0]) for image in images]
            method, maps = _map_of(model, images[0], name)
            change = (maps[0] - _map_of(model, images[1], name)[1][0]).numpy()
            row = rows.loc[(f"film{number}_with", method)]
            assert row["logit_change"] == pytest.approx(logits[0] - logits[1], abs=1e-5)
            inside = np.zeros((64, 64))
            inside[4 + number : 24, 4:22] = 1  # the crop starts at column 8
            expected = np.abs(change * inside).sum() / np.abs(change).sum()
            assert row["inside_share"] == pytest.approx(expected, rel=1e-4)
            assert row["mask_share"] == pytest.approx(inside.mean())
            assert row["same_sign"] == float(np.sign((change * inside).sum()) == np.sign(logits[0] - logits[1]))


def test_patches_without_the_finding_do_not_change(audited, weights, pairs, tmp_path):
    """The finding lies in one patch of four: what that patch changes by is what the logit changes by."""
    results = copied(audited / "patch", tmp_path / "patch")
    assert audit(results, "--pairs", pairs) == 0
    rows = pd.read_csv(results / "faithfulness/pair_films.csv").query("method == 'patches'")
    assert set(rows["same_sign"]) == {1.0}
    area = rows["mask_share"] * 4  # of the upper left patch, over which its contribution is spread
    np.testing.assert_allclose(rows["inside_share"], area, rtol=1e-4)
    np.testing.assert_allclose(rows["inside"], rows["logit_change"] * rows["mask_share"], atol=1e-5)
    before = (results / "faithfulness/pairs.csv").stat().st_mtime_ns
    assert audit(results, "--pairs", pairs) == 0
    assert (results / "faithfulness/pairs.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "pairs.csv").unlink(), "no such file"),
        (lambda folder: (folder / "regions.json").unlink(), "no regions.json with the masks of the findings"),
        (lambda folder: _edit(folder, "film2_without", "film9_without"), "line 4, without: 'film9_without' is not"),
        (lambda folder: _edit(folder, "without,label", "without,name"), "no column named 'label'"),
        (lambda folder: _edit(folder, "Edema", "Fracture"), "no pair of a label that the network has"),
        (lambda folder: _larger(folder / "films/film1_without.png"), "the two films of a pair have different sizes"),
        (lambda folder: (folder / "films/film1_with.png").write_bytes(b"\x89PNG"), "film1_with.png"),
    ],
)  # fmt: skip
def test_pairs_that_are_none_are_refused(audited, pairs, tmp_path, capsys, harm, reason):
    folder, results = copied(pairs, tmp_path / "pairs"), copied(audited / "patch", tmp_path / "patch")
    harm(folder)
    assert reason in refused(capsys, results, "--pairs", folder)
    assert not (results / "faithfulness/pairs.csv").exists()


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "pairs.csv").read_text()
    assert old in text
    (folder / "pairs.csv").write_text(text.replace(old, new))


def _larger(path: Path) -> None:
    Image.open(path).resize((WIDTH + 8, HEIGHT)).save(path)


def test_help_comes_at_once_and_shows_an_example():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "evalFaithfulness.py", "--help"], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[1])  # fmt: skip
    assert done.returncode == 0 and "python evalFaithfulness.py results/MedicalPatchNet" in done.stdout
    assert "torch" not in done.stderr and time.monotonic() - started < 5
