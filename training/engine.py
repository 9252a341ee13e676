"""The only loops over a loader: one training epoch, and prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from chexpert.files import InputError

OnStep = Callable[[float, float], None]
"""Called after each step with the loss and the learning rate that was used."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches of images (B, 1, S, S) in [0, 1] and labels (B, C)."""


class Precision:
    """Half precision on CUDA: bfloat16 where the GPU has it, else float16 with a loss scaler. float32 on the CPU."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.half = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device, enabled=device == "cuda" and self.half is torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", dtype=self.half) if self.device == "cuda" else nullcontext()


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy with logits, mean over the labels that are known; NaN labels count for nothing."""
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    precision: Precision,
    on_step: OnStep,
) -> None:
    """One pass over `batches`, one optimiser and one scheduler step per batch.

    Raises FloatingPointError, before the update, when the loss is not finite.
    """
    model.train()
    for images, labels in batches:
        images = images.to(precision.device, non_blocking=True)
        labels = labels.to(precision.device, non_blocking=True)
        with precision.autocast():
            logits = model(images)
        loss = masked_bce(logits.float(), labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the training loss became {value}; a smaller --lr may help")
        optimizer.zero_grad(set_to_none=True)
        precision.scaler.scale(loss).backward()
        precision.scaler.step(optimizer)
        precision.scaler.update()
        learning_rate = float(scheduler.get_last_lr()[0])
        scheduler.step()
        on_step(value, learning_rate)


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, device: str) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float32 and labels (N, C) of all films, on the CPU, in the order of `batches`.

    Always in single precision: what is reported should not depend on how a network was trained.
    """
    model.eval()
    logits, labels = [], []
    for images, known in batches:
        logits.append(model(images.to(device, non_blocking=True)).float().cpu())
        labels.append(known)
    return torch.cat(logits), torch.cat(labels)


def readable_errors(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Passes batches on; an InputError that comes out of a worker wrapped in its traceback becomes one line again."""
    try:
        yield from batches
    except InputError as error:
        raise InputError(str(error).rstrip().splitlines()[-1].rpartition("InputError: ")[2]) from None
