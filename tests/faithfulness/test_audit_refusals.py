"""evalFaithfulness.py without masks, films or weights: what it leaves out, and what it refuses."""

import json

import numpy as np
import pytest

from tests.faithfulness.auditing import audit, copied, refused, table


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


def test_a_baseline_without_films_has_no_effects_and_says_so(evaluated, tmp_path, capsys):
    results = copied(evaluated / "baseline", tmp_path / "baseline")
    assert audit(results) == 0
    assert "no effects of occlusion: they need forward passes of the films; --chexlocalize is not given" in (
        capsys.readouterr().out
    )
    undefined = {"deletion", "insertion", "deletion_gain", "insertion_gain", "gridpg"}
    assert set(table(results, "faithfulness")["metric"]) == {"border", "outside"} | undefined


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
