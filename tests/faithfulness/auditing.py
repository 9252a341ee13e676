"""Small films, calls of evalFaithfulness.py and what it wrote, for its tests."""

import shutil
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

import cli
import evalFaithfulness
from cxr.labels import CHEXPERT
from saliency.patch_maps import patch_maps
from tests.films import film_pixels

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


def audit(*arguments) -> int:
    quick = [] if "--resamples" in arguments else ["--resamples", "20"]
    return cli.guarded(evalFaithfulness.main, [*map(str, arguments), *quick, "--workers", "1"])


def refused(capsys, *arguments) -> str:
    """The one line that it is refused with."""
    try:
        assert audit(*arguments) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / f"faithfulness/{name}_test.csv")


def map_of(model, image, name):
    if name == "patch":
        return "raw", patch_maps(model, image, steps_per_patch=4, protocol="corrected", batch_size=4)["raw"]
    with torch.no_grad():
        cam = torch.einsum("ck,khw->chw", model.head.weight, model.feature_map(image[None])[0])
    return "cam", torch.nn.functional.interpolate(cam[None], (64, 64), mode="bilinear", align_corners=False)[0]
