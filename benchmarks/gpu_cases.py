"""Cases of `bench_gpu`: a training step, the evidence of a film, and a training that is resumed."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from benchmarks.training_loops import MANY_STEPS, RATE, OurLoop, timed, wait_for
from cxr.labels import CHEXPERT
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from saliency.evidence.folded_network import folded_network
from saliency.patch_maps import evidence_grid
from training.compiling import compiled
from training.engine import Precision, Stepper, one_cycle
from training.loader import Batch

TRAINING, MAPS, RESUME = "training", "maps", "resume"
EAGER, COMPILED, GRAPHS = "eager", "compiled", "CUDA graphs"

WARM_UP = 5
"""Steps before the timed ones: compilation, choice of algorithms, the optimiser's state."""

FILMS_AT_ONCE = 4
"""Films' worth of patches whose logits are computed at once."""


class Case(NamedTuple):
    """One measurement. size: films of a batch, or the stride of the maps in pixels. mode: EAGER, COMPILED, GRAPHS, or
    the precision of the maps."""

    what: str
    backbone: str
    size: int
    mode: str


def network(case: Case, args: argparse.Namespace) -> MedicalPatchNet:
    """Random weights, the same at every call, in channels-last memory on the device."""
    torch.manual_seed(0)
    net = build_model(case.backbone, patch_size=args.patch_size, image_size=args.image_size, labels=CHEXPERT.names)
    return net.to(args.device).to(memory_format=torch.channels_last)


def noise(films: int, image_size: int, device: str, seed: int = 0) -> Batch:
    """A batch of noise that stays on the device."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (films, 1, image_size, image_size), dtype=torch.uint8, generator=rng).to(device)
    labels = torch.randint(0, 2, (films, len(CHEXPERT.names)), generator=rng).float().to(device)
    degrees, brightness = torch.linspace(-5, 5, films).to(device), torch.linspace(0.7, 1.3, films).to(device)
    return Batch(images, labels, degrees, brightness, torch.arange(films), {}, 0.0)


def wrapped(net: nn.Module, mode: str) -> nn.Module:
    """The network as a mode runs it; both share their weights."""
    if mode == GRAPHS:
        return cast(nn.Module, torch.compile(net, dynamic=False, mode="reduce-overhead"))
    return compiled(net, deterministic=True) if mode == COMPILED else net


def training(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Films per second of a training step on a batch that is on the device, with cuDNN as training has it."""
    _deterministic()
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


def resume(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Whether four steps, and two times two with a state between, end with the same bits of weights and optimiser."""
    whole, rest = Run(case, args), Run(case, args)
    whole.steps(0, 4)
    first = Run(case, args)
    first.steps(0, 2)
    rest.load(first.state())
    rest.steps(2, 4)
    return {"same_bits": same_bits(whole.tensors(), rest.tensors())}


class Run:
    """A training that can be saved and goes on in another one, as `Trainer` does it."""

    def __init__(self, case: Case, args: argparse.Namespace) -> None:
        _deterministic()
        self.net, self.case, self.args = network(case, args).train(), case, args
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=RATE, fused=True)
        self.scheduler = one_cycle(self.optimizer, RATE, MANY_STEPS)
        precision = Precision(args.device)
        self.stepper = Stepper(wrapped(self.net, case.mode), self.optimizer, self.scheduler, precision, seed=0)

    def steps(self, first: int, last: int) -> None:
        """Steps `first` to `last` - 1, each with films of its own."""
        for number in range(first, last):
            self.stepper.step([noise(self.case.size, self.args.image_size, self.args.device, seed=number)])
        self.stepper.read()
        wait_for(self.args.device)

    def state(self) -> bytes:
        parts = [part.state_dict() for part in (self.net, self.optimizer, self.scheduler)]
        file = io.BytesIO()
        torch.save([*parts, self.stepper.precision.scaler.state_dict(), self.stepper.steps], file)
        return file.getvalue()

    def load(self, state: bytes) -> None:
        loaded = torch.load(io.BytesIO(state), weights_only=True, map_location="cpu")
        weights, optimizer, scheduler, scaler, steps = loaded
        self.net.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(scheduler)
        self.stepper.precision.scaler.load_state_dict(scaler)
        self.stepper.steps = steps

    def tensors(self) -> list[Tensor]:
        """Weights, statistics, and the optimiser's state of every weight."""
        states = self.optimizer.state_dict()["state"].values()
        return [*self.net.state_dict().values(), *(tensor for state in states for tensor in state.values())]


def same_bits(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _deterministic() -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


MEASURES: dict[str, Callable[[Case, argparse.Namespace], dict[str, Any]]] = {
    TRAINING: training,
    MAPS: maps,
    RESUME: resume,
}
