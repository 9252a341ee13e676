"""Every file format that the project reads: how to write a good file, and the reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.files import read_json, write_json
from cxr.heat_maps import read_film_pixels, read_heat_map, write_heat_map
from cxr.images import Crop, open_film
from cxr.labels import CHEXPERT
from cxr.manifests.dataset_file import read_dataset
from cxr.manifests.films import read_films
from cxr.masks import encode_mask, read_ground_truth
from cxr.packed import damaged_films, open_packed
from cxr.pixels.grey import Grey
from cxr.predictions import Predictions, read_predictions, write_predictions
from cxr.runs.run_record import RunRecord
from cxr.tables import read_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from evaluation.localizing.heatmap_thresholds import read_thresholds as read_tuned
from evaluation.localizing.localization import read_human_points
from models.checkpoint import build_model, load_model, save_model
from models.published import save_published
from preprocessing import preProcCheXpert
from saliency.evidence.evidence_files import FilmLabels, write_evidence
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.film_maps import Evidence
from tests.dicom_films import write_dicom
from tests.films import film_pixels, write_film
from tests.soak import result_formats, set_formats
from training.checkpoints import Checkpoints

FILM = "patient64541_study1_view1_frontal"
TASK = "Edema"

Format = tuple[Callable[[Path, Path], Path], Callable[[Path], object]]
"""Writes a good file into a folder (given also the small CheXpert) and returns it; reads it as the scripts do."""


def heat_map(folder: Path, _: Path) -> Path:
    path = folder / f"{FILM}_{TASK}_map.pkl"
    plane = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    facts = {"probability": 0.5, "task": TASK, "ground_truth": 1, "film_size": (50, 60), "film_pixels": plane}
    write_heat_map(path, map=plane, **facts)
    return path


def regions(folder: Path, _: Path) -> Path:
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:9, 4:20] = True
    write_json(folder / "gt.json", {FILM: dict.fromkeys(CHEXPERT.tasks.values(), encode_mask(mask))})
    return folder / "gt.json"


def predictions(folder: Path, _: Path) -> Path:
    names = tuple(f"CheXpert-v1.0/valid/patient6454{i}/study1/view1_frontal.jpg" for i in range(4))
    values = np.random.default_rng(0).random((4, len(CHEXPERT.names)))
    write_predictions(folder / "p.csv", Predictions(names, values, (values > 0.5).astype(float), CHEXPERT))
    return folder / "p.csv"


def thresholds(folder: Path, _: Path) -> Path:
    write_thresholds(folder / "t.json", Thresholds(dict.fromkeys(CHEXPERT.names, 0.25)))
    return folder / "t.json"


def record(folder: Path, _: Path) -> Path:
    (folder / "a.csv").write_text("a\n1\n")
    of_folder = RunRecord(folder)
    with of_folder.stage("a", inputs={"x": 1}, options={}, outputs=[folder / "a.csv"]) as stage:
        stage.wrote(folder / "a.csv")
    of_folder.note({"weights": {"sha256": "0" * 64}, "model": {"patch_size": 64}})
    return folder / "run.json"


def read_record(path: Path) -> None:
    of_folder = RunRecord(path.parent)
    of_folder.belongs_to("0" * 64, {"patch_size": 64})
    of_folder.check_unchanged(path.parent / "a.csv")
    with of_folder.stage("a", inputs={"x": 1}, options={}, outputs=[]):
        pass


def label_table(folder: Path, chexpert: Path) -> Path:
    shutil.copytree(chexpert / "valid", folder / "valid")
    return Path(shutil.copy(chexpert / "valid.csv", folder / "valid.csv"))


def packed(suffix: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, chexpert: Path) -> Path:
        out = folder / "packed"
        command = ["--chexpert", str(chexpert), "--output", str(out), "--size", "32", "--workers", "1", "--packed"]
        assert preProcCheXpert.main(command) == 0
        return out / f"valid{suffix}"

    return write


def read_packed(path: Path) -> None:
    films = open_packed(path.parent)
    for _ in damaged_films(path.parent):
        pass
    for row in range(64541, 64544):
        films.pixels(f"valid/patient{row}/study1/view1_frontal.jpg")


def weights(name: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, _: Path) -> Path:
        torch.manual_seed(0)
        sizes = {"patch_size": 32, "image_size": 64}
        save_model(build_model("timm/test_efficientnet", **sizes, labels=("a", "b")), folder / "weights")
        return folder / "weights" / name

    return write


def published(folder: Path, _: Path) -> Path:
    torch.manual_seed(0)
    network = build_model("efficientnet_b0", patch_size=64, image_size=512, labels=CHEXPERT.names)
    save_published(network, folder / "published.pt")
    return folder / "published.pt"


def points(folder: Path, chexpert: Path) -> Path:
    regions(folder, chexpert)
    write_json(folder / "points.json", {FILM: {TASK: [[0, 1.5], [29, 19]]}})
    return folder / "points.json"


def tuning(folder: Path, _: Path) -> Path:
    (folder / "tuning_results.csv").write_text(f"task,threshold,miou\n{TASK},0.25,0.5\nAtelectasis,0.5,\n")
    return folder / "tuning_results.csv"


def manifest(name: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, chexpert: Path) -> Path:
        shutil.copytree(chexpert / "valid", folder / "valid")
        rows = [(path.relative_to(folder), number) for number, path in enumerate(sorted(folder.rglob("*.jpg")))]
        lines = [f"{path},film{number},p{number},test,{number % 2},\n" for path, number in rows]
        (folder / "films.csv").write_text("".join(["Path,Film,Patient,Split,Mass,Hernia\n", *lines]))
        facts = {"name": "x", "labels": ["Mass", "Hernia"], "groups": {"both": ["Mass", "Hernia"]}, "tasks": {}}
        write_json(folder / "dataset.json", facts | {"blank": "not labelled", "grey": {"rule": "stored"}})
        boxes = {"size": [64, 64], "kind": "box", "boxes": [[1, 2, 30.5, 40]]}
        write_json(folder / "regions.json", {"film0": {"Mass": boxes}})
        return folder / name

    return write


def read_manifest(path: Path) -> None:
    films = read_films(path.with_name("films.csv"), path.parent, split="test")
    Grey.from_json(read_dataset(path.with_name("films.csv")).grey, "dataset.json")
    read_ground_truth(path.with_name("regions.json")).of_films(set(films.ids))


def evidence(steps_per_patch: int, stride: int) -> Callable[[Path, Path], Path]:
    def write(folder: Path, _: Path) -> Path:
        rng = np.random.default_rng(0)
        m = PixelGrid(ShiftGrid(32, steps_per_patch, 64), stride).m
        made = {"cams": (1, 2, 2), "grid": (1, m, m), "patches": (1, 2, 2)}
        planes: dict[str, Any] = {
            name: torch.from_numpy(rng.random(shape, dtype=np.float32)) for name, shape in made.items()
        }
        planes |= {"cams": {"gradcam": planes["cams"]}, "patches": planes["patches"] if stride > 1 else None}
        sizes = {"patch_size": 32, "steps_per_patch": steps_per_patch, "image_size": 64, "stride": stride}
        of_film = Evidence(Crop.centred(50, 60), **sizes, **planes)
        write_evidence(folder / f"{FILM}.npz", of_film, FilmLabels(FILM, (TASK,), (0.5,), (1,)), torch.rand(6, 5))
        return folder / f"{FILM}.npz"

    return write


def read_evidence(path: Path) -> None:
    for method in ("raw", "gradcam"):
        maps = EvidenceFolder(path.parent, method=method, protocol="corrected", tasks=[TASK])
        maps.load(FILM, TASK)
    maps.patch_logits(FILM, TASK)


def state(folder: Path, _: Path) -> Path:
    Checkpoints(folder).save(3, {"settings": {"lr": 1e-3}, "net": {"a": torch.rand(3, 4)}, "list": [1, 2.5, "x", None]})
    return folder / "training_state.pt"


def picture(suffix: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, _: Path) -> Path:
        path = folder / f"film{suffix}"
        if suffix == ".dcm":
            write_dicom(path, film_pixels(48, 64))
        else:
            write_film(path, 64, 48, seed=0)
        return path

    return write


def table(folder: Path, _: Path) -> Path:
    path = folder / "t.csv"
    path.write_text('Path,x\n"a, b",1\n\nc,-2.5\n')
    return path


FORMATS: dict[str, Format] = {
    **result_formats.FORMATS,
    **set_formats.FORMATS,
    "heat map": (heat_map, lambda path: (read_heat_map(path), read_film_pixels(path))),
    "regions": (regions, read_ground_truth),
    "predictions": (predictions, read_predictions),
    "thresholds": (thresholds, read_thresholds),
    "run.json": (record, read_record),
    "label table": (label_table, lambda path: read_films(path, path.parent)),
    "packed films": (packed(".npy"), read_packed),
    "packed manifest": (packed(".json"), read_packed),
    "evidence": (evidence(2, 1), read_evidence),
    "evidence of a stride": (evidence(32, 5), read_evidence),
    "points": (points, lambda path: read_human_points(path, read_ground_truth(path.with_name("gt.json")))),
    "tuned thresholds": (tuning, lambda path: read_tuned(path, [TASK])),
    **{f"manifest {name}": (manifest(name), read_manifest) for name in ("films.csv", "dataset.json", "regions.json")},
    "published weights": (published, lambda path: load_model(path, patch_size=64)),
    "weights": (weights("model.safetensors"), lambda path: load_model(path.parent)),
    "config": (weights("config.json"), lambda path: load_model(path.parent)),
    "training state": (state, lambda path: Checkpoints(path.parent).load()),
    "csv": (table, read_csv),
    "json": (thresholds, read_json),
    **{f"film {suffix}": (picture(suffix), open_film) for suffix in (".png", ".jpg", ".tif", ".dcm")},
}
