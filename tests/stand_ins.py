"""What the examples of `--help` and the README read beside the demo: small stand-ins at the same relative paths."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch

from models.checkpoint import build_model
from models.published import save_published
from tests.dicom_films import write_dicom
from tests.films import film_pixels, write_film
from tests.hub_server import Hub
from tests.preprocessing.sources import releases

FILMS = 32
"""Of a release, each of another patient."""
_FINDINGS = ("No Finding", "Effusion|Edema")


def lay_stand_ins(folder: Path, hub: Hub) -> None:
    """Films, releases, CheXpert and weights into a copy of the project in which the demo has run.

    CheXpert is a drawn one, which the examples of makeDemoDataset.py make; published weights are those of an untrained
    network, on the hub and beside it.
    """
    films = sorted((folder / "demo/data/CheXlocalize/CheXpert/test").rglob("*.jpg"))
    shutil.copy2(films[0], folder / "a.png")  # a JPEG, which is seen by its content
    shutil.copy2(films[1], folder / "b.jpg")
    write_dicom(folder / "film.dcm", film_pixels())
    (folder / "films").mkdir()
    for number, film in enumerate(films[:5]):
        shutil.copy2(film, folder / f"films/{number}.jpg")
    os.symlink("demo/other", folder / "data")
    os.symlink("demo/data/CheXpert-256", folder / "films-256")
    shutil.copytree(folder / "demo/savedModels/MedicalPatchNet", folder / "savedModels/MedicalPatchNet")
    _published(folder, hub)
    _releases(folder)
    truth = json.loads((folder / "demo/data/CheXlocalize/CheXlocalize/gt_segmentations_test.json").read_text())
    points = {film: {task: [[20, 30]] for task in tasks} for film, tasks in truth.items()}
    (folder / "points.json").write_text(json.dumps(points), encoding="utf-8")


def _published(folder: Path, hub: Hub) -> None:
    torch.manual_seed(0)
    model = build_model("efficientnet_b0", patch_size=64, image_size=512, labels=releases.CHEXPERT.names)
    save_published(model, folder / "MedicalPatchNet_weights.pt")
    weights = (folder / "MedicalPatchNet_weights.pt").read_bytes()
    hub.repos["patrick-w/MedicalPatchNet"] = {"main": {"MedicalPatchNet_weights.pt": weights}}


def _releases(folder: Path) -> None:
    """VinDr's tables alone; tables of NIH and of the Hannover repository, with films of noise."""
    releases.vindr(folder / "vindr-cxr/1.0.0")
    nih, hannover = folder / "ChestX-ray14", folder / "covid-19-image-repository"
    names = [f"{patient:08d}_000.png" for patient in range(1, FILMS + 1)]
    rows = [f"{name},{_FINDINGS[number % 2]},0,{number + 1},60,F,PA,256,256,1,1" for number, name in enumerate(names)]
    releases.write(nih / "Data_Entry_2017_v2020.csv", releases.NIH_HEADER, *rows)
    (nih / "train_val_list.txt").write_text("\n".join(names[: FILMS // 2]), encoding="utf-8")
    (nih / "test_list.txt").write_text("\n".join(names[FILMS // 2 :]), encoding="utf-8")
    header = "patient_id,image_id,sex,age,projection,icu_admission_offset"
    rows = [
        f"p{number},{number},{'fm'[number % 2]},60,{('ap', 'pa')[number // 2 % 2]},{number // 4 % 2 or ''}"
        for number in range(FILMS)
    ]
    releases.write(hannover / "data.csv", header, *rows)
    for number, name in enumerate(names):
        write_film(nih / "images" / name, 256, 256, seed=number)
        write_film(hannover / f"png/{number}.png", 256, 256, seed=number)
