"""Compilation of the network for training: by default on CUDA, where the launches of small batches bind the host."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from training.distributed import ProcessGroup


def choose_compile(asked: bool | None, device: str, group: ProcessGroup) -> bool:
    """Whether to compile: as asked, else on CUDA where all processes can; says on rank 0 when one cannot.

    torch.compile needs a C compiler and Python's headers, which not every machine with a GPU has.
    """
    if asked is not None or device != "cuda":
        return bool(asked)
    reasons = [reason for reason in group.all_gather(why_not_compiled(device)) if reason]
    if reasons:
        group.print(f"the network is not compiled ({reasons[0]}), which would be faster")
    return not reasons


def why_not_compiled(device: str) -> str:
    """Why this machine cannot compile for a device, in one line; empty where it can."""
    try:
        torch.compile(_trial)(torch.ones(64, device=device))
    except Exception as error:  # whatever a missing compiler, header or driver makes torch raise
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:200]
    finally:
        torch._dynamo.reset()
    return ""


def compile_failure(error: BaseException) -> str:
    """Why torch.compile failed, in one line; empty for another error. Networks are compiled in their first step."""
    from torch._dynamo.exc import TorchDynamoException  # here, for it takes seconds

    if not isinstance(error, TorchDynamoException):
        return ""
    cause = getattr(error, "inner_exception", error)
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"[:200]


def _trial(values: torch.Tensor) -> torch.Tensor:
    return (values * 2).cos().sum()


def compiled(model: nn.Module, *, deterministic: bool) -> nn.Module:
    """The compiled network, which shares its weights with `model`.

    Every shape of batch is compiled for itself, so that a run that is resumed computes with the kernels of one that was
    not. deterministic: no kernel is chosen by its measured time, which changes from start to start.
    """
    options: dict[str, Any] = {"deterministic": True} if deterministic else {}
    return cast(nn.Module, torch.compile(model, dynamic=False, options=options))
