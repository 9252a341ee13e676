"""Several processes that train, or predict, as one: started by torchrun or srun, gloo on CPUs, nccl on GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from cxr.files import InputError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""For one that is alive but silent: longer than anything it does alone. One that has ended is noticed at once."""

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Peers:
    """The processes of this run. `rank` counts from 0; the process of rank 0 (`first`) writes files and prints."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @property
    def first(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Prints a line, once for all processes."""
        if self.first:
            print(text)

    def wait(self) -> None:
        """Until all processes are here: what the first one wrote before is there for all of them after."""
        self.highest([0])

    def agree(self, what: str, value: object) -> None:
        """Raises InputError, naming `what` is not the same, unless all processes hold the same value."""
        others = [rank for rank, of_rank in enumerate(self.all(value)) if of_rank != value]
        if others:
            raise InputError(f"{what}: process {others[0]} has others than process {self.rank}; do all see one folder?")

    def highest(self, values: Sequence[float]) -> list[float]:
        """The elementwise maximum over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of CPU tensors over all processes, in the order of ranks."""
        if self.world == 1:
            return values
        return torch.stack(self.all(values)).mean(dim=0)

    def all(self, value: T) -> list[T]:
        """What every process holds, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """What the first process holds."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def own_batches(self, count: int, batch_size: int) -> list[list[int]]:
        """This process's batches of the films 0 .. count - 1. Over all processes each film comes once, in the very
        batches that one process alone would make, so that its prediction is the same to the last bit."""
        starts = range(0, count, batch_size)
        return [list(range(start, min(start + batch_size, count))) for start in starts[self.rank :: self.world]]

    def gather(self, rows: Tensor, indices: Sequence[int], count: int) -> Tensor:
        """Rows (n, ...) that the processes hold for their `indices` -> (count, ...), all of them, on every process.

        Raises ValueError unless each of 0 .. count - 1 comes exactly once.
        """
        parts = self.all((rows.cpu(), list(indices)))
        order = [index for _, of_part in parts for index in of_part]
        if sorted(order) != list(range(count)):
            raise ValueError(f"{len(order)} rows with {len(set(order))} different numbers, where {count} are needed")
        gathered = torch.cat([rows for rows, of_part in parts if of_part])
        return gathered[torch.tensor(order).argsort()]

    def parallel(self, model: nn.Module, device: str) -> nn.Module:
        """Averages gradients over processes; the model itself when this one is alone."""
        if self.world == 1:
            return model
        devices = [torch.cuda.current_device()] if device == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


ALONE = Peers()


@contextmanager
def peers(device: str) -> Iterator[Peers]:
    """Meets the other processes when torchrun (or srun, with the same variables) has started several. May be nested.

    When another process ends early, ConnectionError says so in one line: the reason is in that one's own words.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Peers(dist.get_rank(), dist.get_world_size())
        return
    group = _meet(device)
    try:
        yield group
        group.wait()
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise ConnectionError(f"process {group.rank}: another process of this run ended; see its message") from error
    dist.destroy_process_group()


def _meet(device: str) -> Peers:
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is set and {', '.join(missing)} is not; start with torchrun, or unset it")
    if device == "cuda":
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"process {local_rank} of this machine has no GPU; start {torch.cuda.device_count()}")
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"the processes of this run could not meet at {where} ({reason})") from error
    return Peers(dist.get_rank(), dist.get_world_size())


def _is_of_connection(error: RuntimeError) -> bool:
    words = ("gloo", "nccl", "connection", "socket", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


class BatchNormStatistics:
    """Makes the running statistics of several processes those of one that saw the parts in the order of ranks."""

    def __init__(self, model: nn.Module, peers: Peers) -> None:
        self.peers = peers
        layers = model.modules() if peers.world > 1 else ()
        self.layers: list[Any] = [layer for layer in layers if _keeps_statistics(layer)]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Around one forward pass on every process.

        A process's own update is r -> k r + h, where k = 1 - momentum and h comes from its batch. One process alone
        would end at k^W r + sum over ranks i of k^(W - 1 - i) h_i.
        """
        if not self.layers:
            yield
            return
        before = self._values()
        yield
        keep = torch.cat([torch.full_like(value, 1 - rate).flatten() for value, rate in self._buffers()])
        world = self.peers.world
        total = keep ** (world - 1 - self.peers.rank) * (self._values() - keep * before)
        dist.all_reduce(total)
        self._set(keep**world * before + total)

    def _buffers(self) -> list[tuple[Tensor, float]]:
        return [(buffer, layer.momentum) for layer in self.layers for buffer in (layer.running_mean, layer.running_var)]

    def _values(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer, _ in self._buffers()])

    def _set(self, values: Tensor) -> None:
        buffers = [buffer for buffer, _ in self._buffers()]
        for buffer, value in zip(buffers, values.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(value)
        for layer in self.layers:
            layer.num_batches_tracked += self.peers.world - 1


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.momentum is not None
