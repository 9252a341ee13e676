"""Seconds of an evidence grid: a backbone without padding in one pass, patch by patch, and padded backbones.

    python -m benchmarks.bench_dense
    python -m benchmarks.bench_dense --strides 16 --padded timm/test_efficientnet --out /tmp/quick.csv

One film, untrained networks (their seconds are those of trained ones), all 14 labels, at one stride after the other.
`one pass` and `patch by patch` are the same network and must give the same logits; a padded network can only be
computed patch by patch. `ratio`: CPU seconds of the row over those of `one pass` at the same stride, in the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import cli
import saliency.patch_maps
from benchmarks.measure import Timer, load, machine, report
from cxr.labels import CHEXPERT
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from tests.networks import calibrate

TOLERANCE = 1e-5
"""Largest difference allowed between the two ways, as a share of the largest logit."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_dense")
    parser.add_argument("--dense", default="dense64", help="backbone without padding")
    parser.add_argument("--padded", nargs="+", default=["timm/test_efficientnet"], help="backbones to compare with")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--patch-size", type=int, default=64)
    parser.add_argument("--strides", type=int, nargs="+", default=[32, 16, 8, 4], help="pixels between two starts")
    parser.add_argument("--repeats", type=int, default=3, help="the quickest counts")
    parser.add_argument("--threads", type=int, default=1, help="of all ways")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_dense.csv"), help="result file")
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    facts = {
        "image_size": args.image_size,
        "patch_size": args.patch_size,
        "threads": args.threads,
        "machine": machine(),
        "load_before": load(),
    }
    torch.manual_seed(0)
    film = F.interpolate(torch.rand(1, 1, 9, 9), (args.image_size, args.image_size), mode="bicubic").clamp(0, 1)
    networks = [network(name, args.patch_size, film) for name in (args.dense, *args.padded)]
    rows = [row for stride in args.strides for row in rows_at(stride, networks, film, args.repeats)]
    table = pd.DataFrame(rows)
    ratios = {f"{row.backbone} {row.way}, stride {row.stride}": round(row.ratio, 1) for row in table.itertuples()}
    report("bench_dense", table, args.out, {"ratios": ratios}, facts)
    return 0


def network(backbone: str, patch_size: int, film: Tensor) -> MedicalPatchNet:
    model = build_model(backbone, patch_size=patch_size, image_size=film.shape[-1], labels=CHEXPERT)
    calibrate(model, film)
    return model


def rows_at(stride: int, networks: Sequence[MedicalPatchNet], film: Tensor, repeats: int) -> list[dict[str, Any]]:
    """The first network in both ways, the others patch by patch."""
    dense, *padded = networks
    one_pass, seconds = timed(dense, film, stride, repeats)
    rows = [_row(dense, "one pass", stride, seconds)]
    for model in networks:
        is_dense = saliency.patch_maps.is_dense
        saliency.patch_maps.is_dense = lambda _: False
        try:
            grid, seconds = timed(model, film, stride, repeats)
        finally:
            saliency.patch_maps.is_dense = is_dense
        rows.append(_row(model, "patch by patch", stride, seconds))
        if model is dense:
            rows[-1]["largest_difference"] = difference = float((grid - one_pass).abs().max() / grid.abs().max())
            if not difference <= TOLERANCE:
                raise RuntimeError(f"stride {stride}: the two ways differ by {difference}")
    return [row | {"ratio": row["cpu_seconds"] / rows[0]["cpu_seconds"]} for row in rows]


def timed(model: MedicalPatchNet, film: Tensor, stride: int, repeats: int) -> tuple[Tensor, dict[str, float]]:
    """The evidence grid, and the seconds of the quickest of `repeats` times."""
    runs = []
    for _ in range(repeats):
        timer = Timer()
        steps = model.patch_size // stride
        grid = saliency.patch_maps.evidence_grid(model, film, steps_per_patch=steps, batch_size=4)
        runs.append(timer.seconds())
    return grid, min(runs, key=lambda seconds: seconds["cpu_seconds"])


def _row(model: MedicalPatchNet, way: str, stride: int, seconds: dict[str, float]) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    patches = (model.image_size // stride) ** 2
    return {
        "backbone": model.backbone,
        "parameters": parameters,
        "way": way,
        "stride": stride,
        "patches": patches,
        **seconds,
    }


if __name__ == "__main__":
    cli.run(main)
