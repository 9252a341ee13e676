"""evalFaithfulness.py on results of tiny networks: its numbers against explicit forward passes."""

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
import evalLocalization
from cxr.dataset import network_input
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.images import open_film
from cxr.labels import CHEXPERT
from cxr.masks import read_ground_truth
from evaluation.audit.faithfulness_tables import CropMask
from models.checkpoint import load_model
from reporting.pictures import curves
from saliency.audit.audit_maps import AuditSource
from saliency.audit.curve_passes import random_order
from saliency.evidence.evidence_folders import heat_map_source
from tests.faithfulness.auditing import FILMS, FIRST, LABELS, TASKS, audit, copied, map_of, refused, table
from tests.films import alternating_labels


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
                method, maps = map_of(model, image, name)
                means = maps[output].double().reshape(2, 32, 2, 32).mean(dim=(1, 3)).numpy()
                row = films[(films["Film"] == film_id) & (films["label"] == label) & (films["method"] == method)]
                expected = spearmanr(means.ravel(), drops[output].ravel()).statistic
                assert row[f"correlation {fill}"].item() == pytest.approx(expected, abs=1e-6)
                top = drops[output].ravel()[means.argmax()] == drops[output].max()
                assert row[f"top1 {fill}"].item() == float(top)
                checked += 1
    assert checked == FILMS * 2 * len(LABELS)


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
        means = map_of(model, image, "baseline")[1].double().reshape(-1, 2, 32, 2, 32).mean(dim=(2, 4))  # (C, 2, 2)
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


def test_a_baseline_alone_is_audited_on_the_patches_that_it_was_audited_on(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    before = {path: path.stat().st_mtime_ns for path in results.rglob("faithfulness/**/*") if path.is_file()}
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


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


def test_help_comes_at_once_and_shows_an_example():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "evalFaithfulness.py", "--help"], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[2])  # fmt: skip
    assert done.returncode == 0 and "python evalFaithfulness.py demo/results/MedicalPatchNet" in done.stdout
    assert "torch" not in done.stderr and time.monotonic() - started < 5
