"""Cost of a coarser shift grid: error and seconds of every --steps-per-patch, against the full grid.

    python -m benchmarks.bench_steps films/ --weights demo/savedModels/MedicalPatchNet
    python -m benchmarks.bench_steps film.dcm --out /tmp/b0.csv     # seconds of an EfficientNet-B0, some minutes

Every film's corrected raw map is computed anew for each number of steps. Its difference from the map of the full grid
(a patch at every pixel) is told in percent of that map's range, as the mean over pixels and labels, and as the largest
of all; beside it how far a label's highest place lies from that of the full grid. Seconds are per film, without reading
it. Without --weights the network is an untrained EfficientNet-B0 of 512 px: its seconds are those of a trained one, its
maps are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import cli
from benchmarks.measure import Timer, load, machine, report
from cxr.film_folder import find_films
from cxr.labels import CHEXPERT
from cxr.pixels.tensors import read_square, resize
from models.checkpoint import build_model, load_model
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from saliency.patch_maps import evidence_grid, maps_from_grid
from tests.networks import calibrate


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_steps films/ --weights FOLDER")
    parser.add_argument("films", nargs="+", type=Path, metavar="FILE|FOLDER", help="real radiographs")
    parser.add_argument("--weights", help="a patch network; without, an untrained EfficientNet-B0")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_steps.csv"), help="result file")
    args = parser.parse_args(argv)

    facts: dict[str, Any] = {"machine": machine(), "load_before": load()}
    files = [film.path for film in find_films(args.films, anonymous=False).films]
    network = untrained(files[0]) if args.weights is None else load_model(resolve_weights(args.weights))
    images = [resize(read_square(file)[0], network.image_size) for file in files]  # (1, S, S) each
    table = compare(network, images)
    known = "trained" if args.weights else "untrained"
    what = f"{known} {network.backbone}, {network.image_size} px, patches of {network.patch_size} px"
    summary = {"mean_error_percent": table.set_index("steps")["mean_error_percent"].round(2).to_dict()}
    report("bench_steps", table, args.out, summary, {"network": what, "films": len(files)} | facts)
    return 0


def untrained(film: Path) -> MedicalPatchNet:
    torch.manual_seed(0)
    network = build_model("efficientnet_b0", patch_size=64, image_size=512, labels=CHEXPERT.names)
    image = resize(read_square(film)[0], network.image_size)[None]  # (1, 1, S, S)
    calibrate(network, image)
    return network


def compare(network: MedicalPatchNet, images: Sequence[Tensor]) -> pd.DataFrame:
    """A row per number of steps, the full grid last."""
    divisors = [steps for steps in range(1, network.patch_size + 1) if network.patch_size % steps == 0]
    patches = {steps: (network.image_size * steps // network.patch_size) ** 2 for steps in divisors}
    maps: dict[int, list[Tensor]] = {}
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(images) * sum(patches.values()), desc="maps", unit="patch") as bar:
        for steps in divisors:
            timer = Timer()
            maps[steps] = [raw_map(network, image, steps, bar) for image in images]
            per_film = {name: seconds / len(images) for name, seconds in timer.seconds().items()}
            rows.append({"steps": steps, "patches": patches[steps], **per_film})
    full = maps[network.patch_size]
    errors = [difference(maps[steps], full, network.patch_size // steps) for steps in divisors]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(errors)], axis="columns")


def raw_map(network: MedicalPatchNet, image: Tensor, steps: int, bar: tqdm) -> Tensor:
    """(C, S, S) in logits."""
    grid = evidence_grid(network, image, steps_per_patch=steps, batch_size=8, progress=bar.update)
    sizes = {"patch_size": network.patch_size, "image_size": network.image_size}
    return maps_from_grid(grid, steps_per_patch=steps, protocol="corrected", **sizes)["raw"]


def difference(maps: Sequence[Tensor], full: Sequence[Tensor], stride: int) -> dict[str, float]:
    """Of all films' maps, each (C, S, S): those of a grid of this stride against those of the full grid."""
    errors, moves = [], []
    for coarse, exact in zip(maps, full, strict=True):
        ranges = exact.amax(dim=(1, 2), keepdim=True) - exact.amin(dim=(1, 2), keepdim=True)
        errors.append(((coarse - exact).abs() / ranges).numpy())
        moves += [np.hypot(*(peak(a, stride) - peak(b, 1))) for a, b in zip(coarse, exact, strict=True)]
    return {
        "mean_error_percent": 100 * float(np.mean(errors)),
        "max_error_percent": 100 * float(np.max(errors)),
        "peak_moved_px": float(np.mean(moves)),
    }


def peak(label_map: Tensor, stride: int) -> np.ndarray:
    """(2,) The middle of the block of equal pixels that holds the largest value of a map (S, S)."""
    corner = np.array(divmod(int(label_map.argmax()), label_map.shape[-1])) // stride * stride
    return corner + stride / 2


if __name__ == "__main__":
    cli.run(main)
