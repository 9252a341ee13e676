"""Process group of a training or prediction: started by torchrun or srun, gloo on CPUs, nccl on GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from cxr.files import InputError, quoted

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Collective timeout; a dead process is detected at once, this bounds a hung one."""

_BROADCAST_OPTION = "forward_sync_buffers"
"""Option of DistributedDataParallel; `broadcast_buffers` in older releases of torch."""
if _BROADCAST_OPTION not in signature(DistributedDataParallel).parameters:
    _BROADCAST_OPTION = "broadcast_buffers"

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ProcessGroup:
    """The processes of one run: `rank` of this one, from 0, of `world_size`. Rank 0 (`is_main`) writes and prints."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def print(self, text: str) -> None:
        """Prints a line on rank 0."""
        if self.is_main:
            print(text)

    def barrier(self) -> None:
        """Waits until all processes are here; files that rank 0 wrote before are there for all of them after."""
        self.all_reduce_max([0])

    def require_equal(self, what: str, value: object) -> None:
        """Raises InputError, starting with `what`, unless all processes hold an equal value."""
        others = [rank for rank, of_rank in enumerate(self.all_gather(value)) if of_rank != value]
        if others:
            raise InputError(f"{what}: process {others[0]} has others than process {self.rank}; do all see one folder?")

    def all_reduce_max(self, values: Sequence[float]) -> list[float]:
        """Elementwise maximum over all processes."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Mean of CPU tensors over all processes, summed in the order of ranks."""
        if self.world_size == 1:
            return values
        return torch.stack(self.all_gather(values)).mean(dim=0)

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def shard_batches(self, count: int, batch_size: int) -> list[list[int]]:
        """Batches of film indices of this process. Over all processes each of 0 .. count - 1 comes once, in the same
        batches that a single process makes, so that predictions are equal to the last bit."""
        starts = range(0, count, batch_size)
        return [list(range(start, min(start + batch_size, count))) for start in starts[self.rank :: self.world_size]]

    def gather_rows(self, rows: Tensor, indices: Sequence[int], count: int) -> Tensor:
        """Gathers rows (n, ...), which belong to `indices`, into (count, ...) on every process.

        Raises ValueError unless each of 0 .. count - 1 comes exactly once over all processes.
        """
        parts = self.all_gather((rows.cpu(), list(indices)))
        order = [index for _, of_part in parts for index in of_part]
        if sorted(order) != list(range(count)):
            raise ValueError(f"{len(order)} rows with {len(set(order))} different numbers, where {count} are needed")
        gathered = torch.cat([rows for rows, of_part in parts if of_part])
        return gathered[torch.tensor(order).argsort()]

    def wrap_model(self, model: nn.Module, device: str) -> nn.Module:
        """The model in DistributedDataParallel, which averages gradients; the model itself in a single process.

        Buffers are broadcast before every step only where `BatchNormStatistics` does not keep all of them equal.
        """
        if self.world_size == 1:
            return model
        devices = [torch.cuda.current_device()] if device == "cuda" else None
        options: dict[str, Any] = {} if any(map(_has_other_buffers, model.modules())) else {_BROADCAST_OPTION: False}
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **options)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """Joins the process group when torchrun (or srun, with the same variables) has started several. May be nested.

    Raises ConnectionError in one line when another process ends early; that process prints the reason.
    """
    if _variable("WORLD_SIZE", 1) == 1:
        yield SINGLE_PROCESS
        return
    if dist.is_initialized():
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
        return
    group = _join(device)
    try:
        yield group
        group.barrier()
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise ConnectionError(f"process {group.rank}: another process of this run ended; see its message") from error
    dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    """An environment variable that must be a whole number from 0 on."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(f"{name}={quoted(text)} is not a whole number; start with torchrun, or unset it")
    return int(text)


def _join(device: str) -> ProcessGroup:
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is set and {', '.join(missing)} is not; start with torchrun, or unset it")
    rank, world_size = _variable("RANK", 0), _variable("WORLD_SIZE", 1)
    if rank >= world_size:
        raise InputError(f"RANK={rank} is not below WORLD_SIZE={world_size}; start with torchrun, or unset both")
    if device == "cuda":
        local_rank = _variable("LOCAL_RANK", 0)
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"process {local_rank} of this machine has no GPU; start {torch.cuda.device_count()}")
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"the processes of this run could not connect at {where} ({reason})") from error
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def _is_of_connection(error: RuntimeError) -> bool:
    words = ("gloo", "nccl", "connection", "socket", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


class BatchNormStatistics:
    """Keeps batch normalisation's running statistics equal to those of one process that sees the parts rank by rank.

    The statistics of all layers are flattened into one tensor, so that a part takes a dozen operations and one
    collective, whatever the number of layers.
    """

    def __init__(self, model: nn.Module, group: ProcessGroup) -> None:
        self.group = group
        layers = model.modules() if group.world_size > 1 else ()
        self.layers: list[Any] = [layer for layer in layers if _keeps_statistics(layer)]
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Wraps one forward pass on every process.

        The update of one process is r -> k r + h, with k = 1 - momentum and h from its batch. A single process would
        end at k^W r + sum over ranks i of k^(W - 1 - i) h_i, with W the world size.
        """
        if not self.layers:
            yield
            return
        before = self._values()
        yield
        keep, keep_after_this_rank, keep_after_all = self._powers_of_keep()
        total = keep_after_this_rank * (self._values() - keep * before)
        dist.all_reduce(total)
        self._set(keep_after_all * before + total)

    def _buffers(self) -> list[Tensor]:
        """Looked up anew each time: `module.to(device)` replaces a module's buffers."""
        return [buffer for layer in self.layers for buffer in (layer.running_mean, layer.running_var)]

    def _values(self) -> Tensor:
        """(N,): the statistics of all layers, N values in all."""
        return torch.cat(self._buffers())

    def _powers_of_keep(self) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) each: k, k^(W - 1 - rank) and k^W for the value at the same place in `_values`; made once per device."""
        buffers = self._buffers()
        if self._factors is None or self._factors[0].device != buffers[0].device:
            rates = [layer.momentum for layer in self.layers for _ in ("mean", "variance")]
            keep = torch.cat([torch.full_like(value, 1 - rate) for value, rate in zip(buffers, rates, strict=True)])
            world_size = self.group.world_size
            self._factors = keep, keep ** (world_size - 1 - self.group.rank), keep**world_size
        return self._factors

    def _set(self, values: Tensor) -> None:
        buffers = self._buffers()
        torch._foreach_copy_(buffers, values.split([buffer.numel() for buffer in buffers]))
        torch._foreach_add_([layer.num_batches_tracked for layer in self.layers], self.group.world_size - 1)


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.momentum is not None


def _has_other_buffers(layer: nn.Module) -> bool:
    return not _keeps_statistics(layer) and next(layer.buffers(recurse=False), None) is not None
