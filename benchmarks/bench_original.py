"""Heat maps of one film against the published code itself, on one thread: CPU seconds and the maps' agreement.

    git clone https://github.com/TruhnLab/MedicalPatchNet /tmp/original
    python -m benchmarks.bench_original --original /tmp/original

The published code makes raw and scaled maps in two passes over 4,096 shifts, in batches of 4. Both ways are timed on a
part of their work, in turns, in one process with one thread, and the least CPU seconds of each are extrapolated: the
published way per shift (network and map), ours per patch (network) and per film (maps of 14 labels). `ratio` is the
published seconds per film over ours. The first shifts' logits of both ways are compared. Nothing is copied from the
original: its files are imported from the clone, which is EfficientNetV2-S alone; for B0 its backbone is exchanged.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import Tensor, nn

import cli
from benchmarks.bench_saliency import Enough, network
from benchmarks.measure import load, machine, report
from models.patch_net import MedicalPatchNet
from saliency.evidence.fineness import Fineness
from saliency.evidence.folded_network import folded_network
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.patch_maps import evidence_grid, maps_from_grid

IMAGE_SIZE, PATCH_SIZE, STEPS = 512, 64, 64
BATCHES = 2
"""Of 4 shifts each, that the published way is timed on."""
OURS = (Fineness(64), Fineness(64, 3), Fineness(64, 5), Fineness(64, 9), Fineness(8))
PATCHES = 512
"""Patches that ours is timed on."""
TOLERANCE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_original --original /tmp/original")
    add = parser.add_argument
    add("--original", type=cli.existing_folder, required=True, help="clone of TruhnLab/MedicalPatchNet")
    add("--backbones", nargs="+", default=["efficientnet_b0", "efficientnet_v2_s"])
    add("--repeats", type=cli.whole_number(1, 100), default=3, help="the least of so many is taken")
    add("--out", type=Path, default=Path("benchmarks/results/bench_original.csv"), help="result file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    facts = {"threads": 1, "machine": machine(), "load_before": load()}
    original = published_code(args.original)
    rows = [row for backbone in args.backbones for row in compare(original, backbone, args.repeats)]
    table = pd.DataFrame(rows)
    ratios = table.dropna(subset="ratio").round(1)
    summary = {f"{row.backbone}, {row.way}": row.ratio for row in ratios.itertuples()}
    report("bench_original", table, args.out, {"ratios": summary}, facts)
    return 0


def published_code(folder: Path) -> ModuleType:
    """The clone's evalClassification.py, under a name of its own; ImageNet weights are not downloaded."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("published_evalClassification", folder / "evalClassification.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: no evalClassification.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_network(original: ModuleType, model: MedicalPatchNet) -> nn.Module:
    """The original's class with our weights."""
    make, stated = torchvision.models.efficientnet_v2_s, torchvision.models.efficientnet_v2_s
    try:
        torchvision.models.efficientnet_v2_s = lambda weights=None: make(weights=None)
        theirs = original.ScalePatchNet(model.patch_size, outFeatures=len(model.labels))
    finally:
        torchvision.models.efficientnet_v2_s = stated
    if model.backbone == "efficientnet_b0":
        theirs.baseBackbone = torchvision.models.efficientnet_b0(weights=None)
        theirs.baseBackbone.features[0][0] = nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False)
        theirs.baseBackbone.classifier[1] = nn.Linear(1280, len(model.labels))
    theirs.baseBackbone.features.load_state_dict(model.features.state_dict())
    theirs.baseBackbone.classifier[1].load_state_dict(model.head.state_dict())
    return theirs.eval()


def compare(original: ModuleType, backbone: str, repeats: int) -> list[dict[str, Any]]:
    """A row for the published way and for each fineness of ours."""
    model, image = network(backbone, PATCH_SIZE, IMAGE_SIZE)
    theirs = published_network(original, model)
    folded_network(model)
    shifts = BATCHES * 4
    published = {
        kind: partial(published_logits, original, theirs, image, kind) for kind in ("RawPatchNet", "ScaledPatchNet")
    }
    check(published["RawPatchNet"]()[0], model, image)
    seconds: dict[str, float] = {}
    for _ in range(repeats):
        for kind, logits in published.items():
            least(seconds, f"{kind} network", logits)
        features, places = published["RawPatchNet"]()
        least(seconds, "map", partial(original.genLocalClassMap, features, places, IMAGE_SIZE, PATCH_SIZE))
        least(seconds, "ours network", partial(first_patches, model, image))
        for fineness in OURS:
            grid = torch.randn(14, *[PixelGrid(ShiftGrid(64, fineness.steps_per_patch, 512), fineness.stride).m] * 2)
            least(seconds, f"ours maps {fineness.words}", partial(our_maps, grid, fineness))
    per_shift = (seconds["RawPatchNet network"] + seconds["ScaledPatchNet network"] + 2 * seconds["map"]) / shifts
    whole = STEPS**2 * per_shift
    how = f"{shifts} of {STEPS**2} shifts, raw and scaled"
    rows: list[dict[str, Any]] = [{"backbone": backbone, "way": "published", "cpu_seconds": whole, "how": how}]
    for fineness in OURS:
        patches = fineness.patches(PATCH_SIZE, IMAGE_SIZE) + (64 if fineness.stride > 1 else 0)
        ours = seconds["ours network"] / PATCHES * patches + seconds[f"ours maps {fineness.words}"]
        at_same = whole * (fineness.steps_per_patch / STEPS) ** 2 if fineness.stride == 1 else whole
        how = f"{PATCHES} of {patches} patches, maps whole"
        row = {"backbone": backbone, "way": fineness.words, "cpu_seconds": ours, "how": how, "patches": patches}
        rows.append(row | {"ratio": whole / ours, "ratio_at_the_same_steps": at_same / ours})
    return rows


def least(seconds: dict[str, float], name: str, work: Callable[[], object]) -> None:
    start = time.process_time()
    work()
    seconds[name] = min(seconds.get(name, float("inf")), time.process_time() - start)


def published_logits(original: ModuleType, theirs: nn.Module, image: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Its encoding of the first batches of shifts of image (1, 1, S, S)."""
    original.PATCH_TYPE = kind
    films = original.imgRetrivalUtil.ShiftImgSet(image, STEPS, PATCH_SIZE, IMAGE_SIZE)
    films.shiftTupList = films.shiftTupList[: BATCHES * 4]
    loader = iter(torch.utils.data.DataLoader(films, batch_size=4, shuffle=False))
    features, places = original.encodeClassImg(theirs, "cpu", loader)
    return features, places


def check(features: Tensor, model: MedicalPatchNet, image: Tensor) -> None:
    """Raises RuntimeError unless the first shift's patch logits (P, C) are those that our folded network gives."""
    before = PATCH_SIZE // 2
    padded = nn.functional.pad(image[0, 0], (before, before, before, before))[:IMAGE_SIZE, :IMAGE_SIZE]
    patches = padded.unfold(0, PATCH_SIZE, PATCH_SIZE).unfold(1, PATCH_SIZE, PATCH_SIZE).flatten(0, 1)
    with torch.inference_mode():
        ours = folded_network(model)(patches[:, None])
    difference = float((features[0] - ours).abs().max() / ours.abs().max())
    if difference > TOLERANCE:
        raise RuntimeError(f"the logits differ by {difference} of the largest")


def first_patches(model: MedicalPatchNet, image: Tensor) -> None:
    computed = 0

    def stop(more: int) -> None:
        nonlocal computed
        computed += more
        if computed >= PATCHES:
            raise Enough

    with suppress(Enough):
        evidence_grid(model, image, steps_per_patch=STEPS, batch_size=4, stride=3, progress=stop)


def our_maps(grid: Tensor, fineness: Fineness) -> None:
    sizes = {"patch_size": PATCH_SIZE, "image_size": IMAGE_SIZE, "steps_per_patch": fineness.steps_per_patch}
    maps_from_grid(grid, protocol="corrected", stride=fineness.stride, **sizes)


if __name__ == "__main__":
    cli.run(main)
