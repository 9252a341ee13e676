"""Seconds of the audit per film at the paper's size: all that needs no forward pass, and the baseline's forward passes.

    python -m benchmarks.bench_faithfulness
    python -m benchmarks.bench_faithfulness --films 10 --out /tmp/audit.csv

Evidence of random numbers with the sizes of the real: 64 steps, 14 labels, films of 2320 x 2828 px, masks of 4 labels.
Forward passes are counted, and timed on a batch of 8 with an EfficientNet-B0 of random weights at 512 px, one thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import cli
from benchmarks.measure import least, load, machine, report
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from cxr.names import evidence_folder, methods_of, reference_file
from evaluation.localizing.outlined_films import OutlinedFilms
from film_audit import FilmAuditor
from models.checkpoint import build_model
from saliency.audit.audit_maps import AuditSource, ClosedForm
from saliency.audit.curve_passes import filled_sets
from saliency.audit.occlusion_files import Occlusion, OcclusionFacts, occlusion_file, write_occlusion
from saliency.cam import CAMS
from saliency.evidence.evidence_facts import FilmLabels
from saliency.evidence.evidence_files import write_evidence
from saliency.film_maps import Evidence
from saliency.reference import RunningMeans, Settings, write_reference

SIZE, PATCH, STEPS, SIDE = 512, 64, 64, 8
WIDTH, HEIGHT = 2320, 2828
PAPER_FILMS, CORES = 668, 2
OUTLINED = 4
FILLS, FINDINGS, BATCH = 2, 3, 8
TASKS = [CHEXPERT.task_of(label) for label in CHEXPERT.names]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_faithfulness --films 4")
    parser.add_argument("--films", type=cli.whole_number(1, 1000), default=4, help="films of each network")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_faithfulness.csv"), help="results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    facts: dict[str, Any] = {"machine": machine(), "load_before": load()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ids = [f"patient{number}_study1_view1_frontal" for number in range(args.films)]
        for network, write in (("patch network", _write_patch), ("baseline", _write_baseline)):
            source = write(Path(folder) / network, ids)
            auditor = FilmAuditor(source, CHEXPERT, _outlines(ids))
            per_film = _seconds_per_film(auditor, ids)
            minutes = per_film * PAPER_FILMS / CORES / 60
            rows.append({"network": network, "cpu_seconds_per_film": per_film, "minutes_of_668_films_2_cores": minutes})
    rows += _forward_passes()
    table = pd.DataFrame(rows)
    total = float(table[table["passes_per_film"].isna()]["minutes_of_668_films_2_cores"].sum())
    summary = {"minutes_without_forward_passes": round(total, 1)}
    report("bench_faithfulness", table, args.out, summary, {"films": args.films} | facts)
    return 0


def _seconds_per_film(auditor: FilmAuditor, ids: Sequence[str]) -> float:
    """CPU seconds, of the film that took the least: all films are alike."""
    films = iter(ids)
    return least(lambda: auditor(next(films)), len(ids))[1]["cpu_seconds"]


def _forward_passes() -> list[dict[str, Any]]:
    """Of a film's effects, and of its curves with `FINDINGS` findings: maps of each, one Eigen-CAM, and chance."""
    model = build_model(
        "efficientnet_b0", patch_size=SIZE, image_size=SIZE, labels=CHEXPERT.names, init="random"
    ).eval()
    batch = torch.rand(BATCH, 1, SIZE, SIZE)
    with torch.inference_mode():
        _, seconds = least(lambda: model(batch), 3)
    rng = np.random.default_rng(0)
    chance, own = rng.permutation(SIDE**2), len(methods_of("baseline")) - 1 + 2  # but Eigen-CAM; with both signed CAMs
    orders = {"chance": chance, "reversed": chance[::-1]}
    orders |= {str(number): rng.permutation(SIDE**2) for number in range(own * FINDINGS + 1)}
    curves = len({filled for of_order in filled_sets(orders, SIDE).values() for filled in of_order})
    rows = []
    for what, passes in (("effects", FILLS * SIDE**2 + FILLS + 1), (f"curves, {FINDINGS} findings", FILLS * curves)):
        per_film = passes * seconds["cpu_seconds"] / BATCH
        minutes = per_film * PAPER_FILMS / CORES / 60
        facts = {"network": f"baseline, {what}", "passes_per_film": passes, "cpu_seconds_per_film": per_film}
        rows.append(facts | {"minutes_of_668_films_2_cores": minutes})
    return rows


def _outlines(ids: Sequence[str]) -> OutlinedFilms:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[900:1500, 300:900] = True
    code = encode_mask(mask)
    truth = GroundTruth({film_id: dict.fromkeys(TASKS[:OUTLINED], code) for film_id in ids})
    return OutlinedFilms(truth, "", {}, {})


def _write(results: Path, film_id: str, grid: torch.Tensor | None, cams: dict[str, torch.Tensor], patch: int) -> None:
    crop = Crop.centred(WIDTH, HEIGHT)
    evidence = Evidence(crop, patch, STEPS, SIZE, grid, cams)
    labels = FilmLabels(film_id, TASKS, [0.5] * len(TASKS), [1] * len(TASKS), "frontal")
    film = torch.rand(round(HEIGHT * SIZE / WIDTH), SIZE)
    write_evidence(evidence_folder(results, "test") / f"{film_id}.npz", evidence, labels, film, "a" * 64)


def _write_patch(results: Path, ids: Sequence[str]) -> AuditSource:
    means = RunningMeans(Settings("a" * 64, PATCH, STEPS, SIZE), TASKS)
    for film_id in ids:
        grid = torch.randn(len(TASKS), SIZE, SIZE)
        _write(results, film_id, grid, {}, PATCH)
        means.add("frontal", grid.numpy())
    write_reference(reference_file(results), means.result(""))
    lines = dict.fromkeys(TASKS, (np.full((SIDE, SIDE), 1 / SIDE**2), np.zeros((SIDE, SIDE))))
    fills = {(film_id, fill): dict.fromkeys(TASKS, -1.0) for film_id in ids for fill in ("black", "mean")}
    closed_form = ClosedForm(lines, fills)
    return AuditSource(results, side=SIDE, image_size=SIZE, tasks=TASKS, closed_form=closed_form)


def _write_baseline(results: Path, ids: Sequence[str]) -> AuditSource:
    facts = OcclusionFacts("a" * 64, SIDE, {"black": 0.0, "mean": 0.5}, TASKS, "frontal")
    rng = np.random.default_rng(0)
    for film_id in ids:
        _write(results, film_id, None, {method: torch.rand(len(TASKS), 16, 16) for method in CAMS}, SIZE)
        drops = {(fill, task): rng.random((SIDE, SIDE)) for fill in facts.greys for task in TASKS}
        cams = {task: rng.random((16, 16)) for task in TASKS}
        for split in ("val", "test"):
            write_occlusion(occlusion_file(results, split, film_id), Occlusion(facts, drops, cams))
    return AuditSource(results, side=SIDE, image_size=SIZE, tasks=TASKS, forward=True)


if __name__ == "__main__":
    cli.run(main)
