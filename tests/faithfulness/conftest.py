"""Results of tiny networks, evaluated and audited once for all tests of this folder, which copy what they change."""

import shutil

import numpy as np
import pytest
import torch

import cli
import evalClassification
from cxr.files import write_json
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask
from models.checkpoint import build_model, save_model
from tests.faithfulness.auditing import FILMS, FIRST, HEIGHT, LABELS, SPLIT_FOLDER, WIDTH, audit, write_films
from tests.films import alternating_labels, write_labels
from tests.networks import calibrate


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def data(tmp_path_factory, chexlocalize):
    root = tmp_path_factory.mktemp("data")
    write_films(root, {"val": "valid", "test": "test"})
    shutil.copy(chexlocalize / "CheXpert/val_labels.csv", root / "valid.csv")
    shutil.copy(chexlocalize / "CheXpert/test_labels.csv", root / "test_labels.csv")
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, patch_size, seed in (("patch", 32, 0), ("baseline", 64, 1)):
        torch.manual_seed(seed)
        model = build_model("timm/test_efficientnet", patch_size=patch_size, image_size=64, labels=LABELS)
        calibrate(model, images)
        save_model(model, folder / name)
    return folder


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, data, chexlocalize, weights):
    root = tmp_path_factory.mktemp("results")
    for name in ("patch", "baseline"):
        command = ["--weights", weights / name, "--data", data, "--chexlocalize", chexlocalize, "--output", root / name]
        command += ["--no-pickles", "--steps-per-patch", 4, "--resamples", 20, "--workers", 0]
        assert cli.guarded(evalClassification.main, list(map(str, command))) == 0
    return root


@pytest.fixture(scope="session")
def audited(evaluated, chexlocalize, tmp_path_factory):
    root = tmp_path_factory.mktemp("audited") / "results"
    shutil.copytree(evaluated, root)
    assert audit(root / "patch", root / "baseline", "--chexlocalize", chexlocalize) == 0
    return root
