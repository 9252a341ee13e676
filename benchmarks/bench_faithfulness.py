"""Seconds of the audit per film at the paper's size, of everything that needs no forward pass, and of 668 films.

    python -m benchmarks.bench_faithfulness
    python -m benchmarks.bench_faithfulness --films 10 --out /tmp/audit.csv

Evidence of random numbers with the sizes of the real: 64 steps, 14 labels, films of 2320 x 2828 px, masks of 4 labels.
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
from benchmarks.measure import Timer, load, machine, report
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from cxr.names import evidence_folder, reference_file
from evaluation.localizing.outlined_films import OutlinedFilms
from film_audit import FilmAuditor
from saliency.audit.audit_maps import AuditSource, ClosedForm
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
            timer = Timer()
            for film_id in ids:
                auditor(film_id)
            per_film = timer.seconds()["cpu_seconds"] / args.films
            minutes = per_film * PAPER_FILMS / CORES / 60
            rows.append({"network": network, "cpu_seconds_per_film": per_film, "minutes_of_668_films_2_cores": minutes})
    table = pd.DataFrame(rows)
    total = float(table["minutes_of_668_films_2_cores"].sum())
    report("bench_faithfulness", table, args.out, {"minutes_of_both": round(total, 1)}, {"films": args.films} | facts)
    return 0


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
