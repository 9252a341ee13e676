"""Measures of the cases of `bench_gpu`: a training step, the evidence of a film, a training that is resumed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import GRAPHS, MAPS, RESUME, TRAINING, Case, deterministic, network, noise, wrapped
from benchmarks.gpu.resumed import resume
from benchmarks.training.loops import OurLoop, timed
from saliency.evidence.folded_network import folded_network
from saliency.patch_maps import evidence_grid

WARM_UP = 5
"""Steps before the timed ones: compilation, choice of algorithms, the optimiser's state."""

FILMS_AT_ONCE = 4
"""Films' worth of patches whose logits are computed at once."""


def training(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Films per second of a training step on a batch that is on the device, with cuDNN as training has it."""
    deterministic()
    loop = OurLoop(wrapped(network(case, args), case.mode), args.device)
    batch = noise(case.size, args.image_size, args.device)
    seconds = timed(loop, [batch] * (WARM_UP + args.steps), WARM_UP)["seconds"]
    return {"films_per_s": args.steps * case.size / seconds, "ms_per_step": 1000 * seconds / args.steps}


def maps(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the evidence grid of a film, and its error in percent of its range against single precision."""
    net = network(case, args).eval()
    image = torch.rand(1, args.image_size, args.image_size, generator=torch.Generator().manual_seed(0))

    def evidence(mode: str) -> Tensor:
        with torch.autocast(args.device, torch.bfloat16) if mode == "bf16" else nullcontext():
            steps = args.patch_size
            return evidence_grid(
                net, image, steps_per_patch=steps, batch_size=FILMS_AT_ONCE, stride=case.size
            )  # (C, m, m), on the CPU: nothing is left to wait for

    exact = evidence("fp32")  # also the warm-up
    if case.mode == GRAPHS:
        folded = folded_network(net)
        folded.features = wrapped(folded.features, GRAPHS)
    evidence(case.mode)
    started = time.perf_counter()
    found = evidence(case.mode)
    seconds = time.perf_counter() - started
    error = 100 * (found - exact).abs() / (exact.max() - exact.min())
    errors = {"mean_error_percent": float(error.mean()), "max_error_percent": float(error.max())}
    return {"seconds_per_film": seconds} | errors


MEASURES: dict[str, Callable[[Case, argparse.Namespace], dict[str, Any]]] = {
    TRAINING: training,
    MAPS: maps,
    RESUME: resume,
}
