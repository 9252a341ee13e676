"""The training step, its schedule and precision, and prediction: everything that runs on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.augment import rotate_and_brighten
from training.distributed import SINGLE_PROCESS, BatchNormStatistics, ProcessGroup
from training.loader import Batch
from training.workers import ignore_signals, plain_failures

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

SMALLEST_LOSS_SCALE = 2.0**-14
"""Below it even a loss of 1 vanishes in float16: the gradients are not finite at any scale."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises, as published."""


def one_cycle(optimizer: Optimizer, max_lr: float, total_steps: int) -> OneCycleLR:
    """The published schedule: torch's OneCycleLR with `pct_start=0.05`, for any number of steps from 1 on.

    With exactly 20 steps torch's warm-up ends at step 0, where it starts, and divides by zero. There the warm-up is
    shortened by one bit, so that step 0 has the highest rate, as the last step of every warm-up has.
    """
    warm_up = WARM_UP if WARM_UP * total_steps != 1 else math.nextafter(WARM_UP, 0)
    return OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=warm_up)


class Precision:
    """Autocast and loss scaler by name; `auto`: bfloat16 where the GPU has it, else float16; float32 on the CPU."""

    def __init__(self, device: str, name: PrecisionName = "auto") -> None:
        if name == "auto":
            bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            name = "bf16" if bf16 else "fp16" if device == "cuda" else "fp32"
        self.name = name
        self.device = device
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.scaler = torch.amp.GradScaler(device, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.name == "fp32" else torch.autocast(self.device, dtype=self.dtype)


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy with logits (B, C), mean over the labels that are known; NaN labels have no loss."""
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def film_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The published loss of films (B, 1, S, S) in [0, 1] with labels (B, C)."""
    return masked_bce(model(images).float(), labels)


class StepRow(NamedTuple):
    """One step, counted from 1: loss and gradient norm before its update, learning rate of the update."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float


class NotFiniteError(ArithmeticError):
    """A loss or gradient that is not finite; no update was made with it, or with any step after it."""

    def __init__(self, row: StepRow, films: list[int]) -> None:
        super().__init__(f"step {row.step}: loss {row.loss}, gradient norm {row.grad_norm}")
        self.row = row
        self.films = films


class _Unread(NamedTuple):
    step: int
    loss: Tensor
    learning_rate: float
    grad_norm: Tensor
    films: list[Tensor]


class Stepper:
    """Training steps that never wait for the device: losses stay there until `read`.

    A step processes this rank's parts of the batch one after the other. The random numbers of a part (dropout,
    stochastic depth) follow from (seed, step, part) alone, so parts can be spread over processes and no generator
    state has to be saved. From the first loss or gradient that is not finite on, updates are skipped on the device;
    `read` raises NotFiniteError for it. In float16 a gradient may overflow, which skips its own update only.
    `optimizer` must be a fused one, which can skip an update.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        precision: Precision,
        seed: int,
        group: ProcessGroup = SINGLE_PROCESS,
        loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = film_loss,
    ) -> None:
        self.loss = loss
        self.model, self.optimizer, self.scheduler, self.precision = model, optimizer, scheduler, precision
        self.seed, self.group = seed, group
        self.steps = 0
        self._statistics = BatchNormStatistics(model, group)
        self._broken = torch.zeros((), device=precision.device)
        self._unread: list[_Unread] = []

    @property
    def unread(self) -> int:
        """Steps that have not been read."""
        return len(self._unread)

    def step(self, batches: Sequence[Batch]) -> None:
        """One update with the mean gradient of all parts; `batches` are the parts of this process."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, batch in enumerate(batches):
            self._seed_part(self.group.rank + number * self.group.world_size)
            with self._synchronised(number == len(batches) - 1), self._statistics.in_turn():
                losses.append(self._backward(batch, share=1 / len(batches)))
        loss = torch.stack(losses).mean()
        learning_rate = float(self.scheduler.get_last_lr()[0])
        grad_norm = self._update(loss)
        self.scheduler.step()
        self.steps += 1
        self._unread.append(_Unread(self.steps, loss, learning_rate, grad_norm, [batch.films for batch in batches]))

    def read(self) -> list[StepRow]:
        """The steps since the last call, losses averaged over all processes. Waits for the device.

        Raises NotFiniteError for the first loss or gradient norm of this process that is not finite; in float16 also
        for the last one when no loss scale is low enough.
        """
        if not self._unread:
            return []
        unread, self._unread = self._unread, []
        losses = torch.stack([row.loss for row in unread]).cpu().double()
        norms = torch.stack([row.grad_norm for row in unread]).cpu().double()
        overflow_is_normal = self.precision.scaler.is_enabled()  # the scaler skipped that update, and lowers the scale
        broken = ~losses.isfinite() | (~norms.isfinite() & (not overflow_is_normal))
        if overflow_is_normal and self.precision.scaler.get_scale() < SMALLEST_LOSS_SCALE:
            broken[-1] = True
        if broken.any():
            first = int(broken.nonzero()[0])
            row, films = unread[first], torch.cat(unread[first].films).tolist()
            raise NotFiniteError(StepRow(row.step, float(losses[first]), row.learning_rate, float(norms[first])), films)
        losses = self.group.all_reduce_mean(losses)
        return [
            StepRow(row.step, float(loss), row.learning_rate, float(norm))
            for row, loss, norm in zip(unread, losses, norms, strict=True)
        ]

    def _seed_part(self, part: int) -> None:
        entropy = np.random.SeedSequence((self.seed, self.steps, part))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are averaged over processes in the last backward pass of a step only."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _backward(self, batch: Batch, share: float) -> Tensor:
        device = self.precision.device
        images, degrees, brightness, labels = (
            tensor.to(device, non_blocking=True)
            for tensor in (batch.images, batch.degrees, batch.brightness, batch.labels)
        )
        with self.precision.autocast():
            loss = self.loss(self.model, rotate_and_brighten(images, degrees, brightness), labels)
        self.precision.scaler.scale(loss * share).backward()
        return loss.detach()

    def _update(self, loss: Tensor) -> Tensor:
        """Updates the weights unless loss or gradients are not finite; returns the norm of all gradients."""
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~(loss + grad_norm).isfinite()
        final = ~loss.isfinite() if scaler.is_enabled() else bad  # gradients that overflow in float16 lower its scale
        self._broken = torch.maximum(self._broken, final.float())
        skipped = torch.maximum(self._broken, bad.float())
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as a GradScaler sets it for a fused one
        self.optimizer.step()
        scaler.update()
        return grad_norm


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: str) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float32 and labels (N, C) of all films, on the CPU, in the order of `batches`.

    batches: images (B, 1, S, S) in [0, 1] and labels (B, C). Always in single precision: results should not depend on
    how a network was trained. Logits stay on the device until the end, so that no batch waits for the one before it.
    """
    model.eval()
    logits, labels = [], []
    for images, known in batches:
        logits.append(model(images.to(device, non_blocking=True)).float())
        labels.append(known)
    return torch.cat(logits).cpu(), torch.cat(labels)


def predict_films(
    model: nn.Module,
    dataset: Dataset[tuple[Tensor, Tensor]],
    device: str,
    *,
    batch_size: int,
    workers: int,
    group: ProcessGroup = SINGLE_PROCESS,
    worker_timeout: float = 300.0,
    title: str | None = None,
) -> Tensor:
    """Logits (N, C) of all films of `dataset`, in its order, on every process; each predicts its share of the batches.

    worker_timeout: seconds without a batch after which a worker counts as hung. title: of the progress bar, which is
    shown on rank 0 when it is a terminal; None: no bar.
    """
    own = group.shard_batches(len(dataset), batch_size)  # type: ignore[arg-type]  # torch's Dataset has no __len__
    loader = DataLoader(
        dataset,
        batch_sampler=own,
        num_workers=workers,
        worker_init_fn=ignore_signals,
        timeout=worker_timeout if workers else 0,
        pin_memory=device == "cuda",
    )
    hidden = True if title is None or not group.is_main else None  # None: shown on a terminal only
    shown = tqdm(loader, desc=title, disable=hidden)
    with plain_failures():
        logits = predict(model, shown, device)[0] if own else torch.empty(0)
    return group.gather_rows(logits, [index for batch in own for index in batch], len(dataset))  # type: ignore[arg-type]
