"""evalFaithfulness.py --pairs: the causal test."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr.dataset import network_input
from cxr.files import write_json
from cxr.images import open_film
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask
from models.checkpoint import load_model
from tests.faithfulness.auditing import HEIGHT, LABELS, TASKS, WIDTH, audit, copied, map_of, refused
from tests.films import film_pixels


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
            method, maps = map_of(model, images[0], name)
            change = (maps[0] - map_of(model, images[1], name)[1][0]).numpy()
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
