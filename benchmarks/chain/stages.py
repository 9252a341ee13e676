"""The stages of the chain as they are measured: the project's own code on a few films, in a process of its own each.

`set_up(folder, size, count)` makes ready what is not timed and returns the work, which is called with an empty folder
to write into. What it reads, `prepare(folder, size, count)` has written in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

import makeReport
import saliency.export
from benchmarks.bench_bootstrap import simulated
from benchmarks.bench_saliency import Enough, network
from benchmarks.chain.films import (
    MASKS,
    PATCH,
    STEPS,
    phantom,
    smooth_grid,
    write_listed_films,
    write_outlined,
    write_release,
)
from benchmarks.training.films import pack, write_jpegs
from benchmarks.training.loops import OurLoop
from cxr.dataset import FilmDataset
from cxr.film_folder import FilmFile, film_names
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.manifests.films import read_films
from cxr.masks import read_ground_truth
from cxr.names import PROTOCOLS
from evaluation.classification import classification_table, youden_thresholds
from evaluation.localizing.controls import score_with_controls
from evaluation.localizing.heatmap_thresholds import tune
from evaluation.localizing.location_prior import LocationPrior
from evaluation.localizing.miou_curves import miou_curves_and_more
from evaluation.localizing.outlined_films import OutlinedFilms
from evaluation.localizing.with_prior import FilmPriors, floor_hits
from models.checkpoint import build_model
from preprocessing import preProcCheXpert
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.evidence.fineness import Fineness
from saliency.film_maps import Evidence
from saliency.patch_maps import evidence_grid
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_results
from training.engine import predict_films
from training.loader import Batch, PartSampler, TrainingSet, collate

Work = Callable[[Path], object]

TRAIN, VALIDATION, TEST, EPOCHS = 223_414, 234, 668, 20
MAPS = 12
"""Methods and protocols scored: raw, scaled and three CAMs in both, relative alone and times the prior in one."""
STEP = 8
"""Films of a training step."""


@dataclass(frozen=True)
class Stage:
    """One stage. size: at which it runs, in pixels (films for the bootstrap, none for names); also measured at half of
    it. counts: how many units are measured. units: of the whole chain; at_once: of them, those of one process."""

    name: str
    unit: str
    size: int
    counts: tuple[int, int]
    units: float
    at_once: float
    set_up: Callable[[Path, int, int], Work]
    prepare: Callable[[Path, int, int], None] | None = None


@dataclass(frozen=True)
class Sizes:
    """Height of the films, side of copies and network's films, backbone."""

    film: int = 2320
    copy: int = 1024
    image: int = 512
    backbone: str = "efficientnet_b0"


def stages(sizes: Sizes) -> list[Stage]:
    """All of them, in the chain's order."""
    films, map_films = TRAIN + VALIDATION + TEST, VALIDATION + TEST
    whole, coarse = (f.patches(PATCH, sizes.image) for f in (Fineness(STEPS), Fineness(STEPS, 3)))
    outlined = partial(write_outlined, image_size=sizes.image)
    export = partial(exporting, film_height=sizes.film)
    return [
        Stage("preprocessing to JPEGs", "film", sizes.film, (4, 12), films, films, copying, write_release),
        Stage("packing of the JPEGs", "film", sizes.copy, (8, 24), films, films, packing, jpegs),
        Stage("table of the training films", "film", 0, (10_000, 40_000), TRAIN, TRAIN, listing, write_listed_films),
        Stage(f"reading for training, {EPOCHS} epochs, packed", "film", sizes.copy, (48, 144), EPOCHS * TRAIN, TRAIN,
              partial(reading, image_size=sizes.image), packed),
        Stage(f"training, {EPOCHS} epochs, steps of {STEP} films", "film", sizes.image, (STEP, 2 * STEP),
              EPOCHS * TRAIN, EPOCHS * TRAIN, partial(training, backbone=sizes.backbone)),
        Stage("predictions of two networks", "film", sizes.image, (4, 12), 2 * map_films, map_films,
              partial(predicting, backbone=sizes.backbone), jpegs),
        Stage("evidence, 64 steps", "patch", sizes.image, (256, 768), map_films * whole, whole,
              partial(evidence, stride=1, backbone=sizes.backbone)),
        Stage("evidence, every 3 px", "patch", sizes.image, (256, 768), map_films * (coarse + 64), coarse,
              partial(evidence, stride=3, backbone=sizes.backbone)),
        Stage("evidence files written", "film", sizes.image, (1, 3), map_films, map_films,
              partial(export, pickles=False)),
        Stage("evidence files and pickles, two protocols", "film", sizes.image, (1, 3), map_films, map_films,
              partial(export, pickles=True)),
        Stage("threshold tuning", "film and method", sizes.film, (1, 3), MAPS * VALIDATION, VALIDATION, tuning,
              outlined),
        Stage("localization scoring, with controls", "film and method", sizes.film, (12, 36), MAPS * TEST, TEST,
              scoring, outlined),
        Stage("bootstrap, two networks, two splits", "resample", TEST, (25_000, 100_000), 400_000, 100_000,
              resampling),
        Stage("report", "film", sizes.image, (6, 18), TEST, TEST, reporting, results),
        Stage("names of 100,000 films", "film", 0, (25_000, 100_000), 100_000, 100_000, naming),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- films


def jpegs(folder: Path, size: int, count: int) -> None:
    write_jpegs(folder, count, size)


def packed(folder: Path, size: int, count: int) -> None:
    write_jpegs(folder / "jpegs", count, size)
    pack(folder / "jpegs", folder / "packed", size)


def copying(folder: Path, size: int, count: int) -> Work:
    side = size * 1024 // 2320
    arguments = ["--chexpert", str(folder), "--size", str(side), "--workers", "1"]
    return lambda out: preProcCheXpert.main([*arguments, "--output", str(out / "copies")])


def packing(folder: Path, size: int, count: int) -> Work:
    arguments = ["--chexpert", str(folder), "--size", str(size), "--workers", "1", "--packed"]
    return lambda out: preProcCheXpert.main([*arguments, "--output", str(out / "packed")])


def listing(folder: Path, size: int, count: int) -> Work:
    return lambda _: read_films(folder / "train.csv", folder)


def reading(folder: Path, size: int, count: int, *, image_size: int) -> Work:
    root = folder / "packed"
    films = TrainingSet(FilmDataset(read_films(root / "train.csv", root), image_size), seed=0)

    def read(_: Path) -> None:
        sampler = PartSampler(count, STEP, seed=0)
        for _batch in DataLoader(films, batch_sampler=sampler, collate_fn=collate, num_workers=0):
            pass

    return read


# ----------------------------------------------------------------------------------------------------------- networks


def training(folder: Path, size: int, count: int, *, backbone: str) -> Work:
    torch.manual_seed(0)
    model = build_model(backbone, patch_size=PATCH, image_size=size, labels=CHEXPERT.names)
    loop = OurLoop(model.to(memory_format=torch.channels_last), "cpu")
    images = torch.randint(0, 256, (STEP, 1, size, size), dtype=torch.uint8)
    labels = torch.randint(0, 2, (STEP, len(CHEXPERT.names))).float()
    batch = Batch(images, labels, torch.zeros(STEP), torch.ones(STEP), torch.arange(STEP), {}, 0.0)
    first = Batch(images[:1], labels[:1], torch.zeros(1), torch.ones(1), torch.arange(1), {}, 0.0)
    loop.step(first)  # sets things up

    def steps(_: Path) -> None:
        for of_step in repeat(batch, count // STEP):
            loop.step(of_step)
        loop.finish()

    return steps


def predicting(folder: Path, size: int, count: int, *, backbone: str) -> Work:
    model, _ = network(backbone, PATCH, size)
    dataset = FilmDataset(read_films(folder / "train.csv", folder), size)
    return lambda _: predict_films(model.eval(), dataset, "cpu", batch_size=4, workers=0)


def evidence(folder: Path, size: int, count: int, *, stride: int, backbone: str) -> Work:
    model, image = network(backbone, PATCH, size)

    def first_patches(_: Path) -> None:
        computed = 0

        def stop(more: int) -> None:
            nonlocal computed
            computed += more
            if computed >= count:
                raise Enough

        with suppress(Enough):
            evidence_grid(model, image, steps_per_patch=STEPS, batch_size=4, stride=stride, progress=stop)

    return first_patches


def exporting(folder: Path, size: int, count: int, *, film_height: int, pickles: bool) -> Work:
    """Export of evidence that was gathered before: maps and files are measured; the network is dense64, a small one."""
    torch.manual_seed(0)
    model = build_model("dense64", patch_size=PATCH, image_size=size, labels=CHEXPERT.names)
    film = Image.fromarray(phantom(film_height))
    tasks = {CHEXPERT.label_of(task): task for task in CHEXPERT.task_names}
    gathered = Evidence(Crop.centred(*film.size), PATCH, STEPS, size, smooth_grid(0, size), {})
    saliency.export.gather_evidence = lambda *_, **__: gathered  # this process ends with the stage
    given = {"pickles": pickles, "tasks": tasks, "steps_per_patch": STEPS, "batch_size": 4}

    def export(out: Path) -> None:
        wanted = saliency.export.HeatMapExport(out, "test", ("raw", "scaled"), PROTOCOLS, **given)
        for number in range(count):
            film_id = f"patient{number + 1}_study1_view1_frontal"
            saliency.export.export_film(wanted, model, film, film_id, dict.fromkeys(tasks, 0.0))

    return export


# --------------------------------------------------------------------------------------------------------- evaluation


def outlined(folder: Path) -> tuple[EvidenceFolder, OutlinedFilms, LocationPrior]:
    """Maps of one method, their films, and the prior of these."""
    films = OutlinedFilms(read_ground_truth(folder / MASKS), "", {}, {})
    maps = EvidenceFolder(folder, method="raw", protocol="corrected", tasks=CHEXPERT.task_names)
    return maps, films, LocationPrior.of(films)


def tuning(folder: Path, size: int, count: int) -> Work:
    maps, films, prior = outlined(folder)

    def tuned(_: Path) -> None:
        more = partial(floor_hits, priors=FilmPriors(prior, films))
        for curves in miou_curves_and_more(maps, films.truth, more)[:2]:
            tune(curves, "exact")

    return tuned


def scoring(folder: Path, size: int, count: int) -> Work:
    maps, films, prior = outlined(folder)
    thresholds = [dict.fromkeys(CHEXPERT.task_names, threshold) for threshold in (0.6, 0.7)]
    given = {"thresholds": thresholds, "floor": 0.05, "seed": 0, "workers": 1}
    return lambda _: score_with_controls(maps, films, prior, **given)


def resampling(folder: Path, size: int, count: int) -> Work:
    predictions = simulated(size)
    thresholds = youden_thresholds(predictions)
    return lambda _: classification_table(predictions, thresholds, resamples=count)


def results(folder: Path, size: int, count: int) -> None:
    write_results(folder, films=count)
    write_case_files(folder, image_size=size, patch_size=PATCH, steps_per_patch=8)


def reporting(folder: Path, size: int, count: int) -> Work:
    masks = str(folder / "gt_segmentations_test.json")
    return lambda out: makeReport.main([str(folder), "--output", str(out / "report"), "--gt-path", masks])


def naming(folder: Path, size: int, count: int) -> Work:
    form = "patient{number:06d}/study1/view1_frontal.jpg"
    films: Sequence[FilmFile] = [FilmFile(Path("films"), form.format(number=number // 2)) for number in range(count)]
    return lambda _: film_names(films, anonymous=False)
