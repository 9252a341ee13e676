"""A training that is saved and resumed in a fresh network: does it end with the same bits?"""

from __future__ import annotations

import argparse
import io
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, deterministic, network, noise, wrapped
from benchmarks.training.loops import MANY_STEPS, RATE, wait_for
from training.engine import Precision, Stepper, one_cycle


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
        deterministic()
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
