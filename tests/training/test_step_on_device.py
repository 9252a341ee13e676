"""A step as a GPU wants it: nothing in it waits for a value, and every convolution works in channels-last memory."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.checkpoint import build_model
from training.engine import Precision, Stepper
from training.loader import Batch

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
"""What needs a tensor's values on the host: `item`, `float`, `bool` and the like; boolean indices do too."""


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masked = name.startswith("index") and any(mask is not None and mask.dtype == torch.bool for mask in args[1])
        if name in WAITING or masked:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


def batch(films=4, size=64):
    drawn = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (films, 1, size, size), dtype=torch.uint8, generator=drawn),
        labels=torch.randint(0, 2, (films, 3), generator=drawn).float(),
        degrees=torch.linspace(-5, 5, films),
        brightness=torch.linspace(0.7, 1.3, films),
        films=torch.arange(films),
        unreadable={},
        seconds=0.0,
    )


def stepper(precision="fp32"):
    torch.manual_seed(0)
    net = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("a", "b", "c"))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=9)
    return net, Stepper(net, optimizer, scheduler, Precision("cpu", precision), seed=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_no_step_waits_for_a_value(precision):
    _, steps = stepper(precision)
    for _ in range(2):  # the optimiser's first step makes its state
        with NoWaiting():
            steps.step([batch(), batch()])
    assert len(steps.read()) == 2


def in_backward(x):
    x.requires_grad_().register_hook(lambda gradient: gradient * float(gradient.sum()))
    x.sum().backward()


@pytest.mark.parametrize(
    "wait", [lambda x: x.sum().item(), lambda x: bool(x.isfinite().all()), lambda x: x[x > 0], in_backward]
)
def test_waiting_is_noticed(wait):
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        wait(torch.randn(5))


def test_every_convolution_works_in_channels_last_memory():
    net, steps = stepper()
    seen = []

    def look(layer, _, output):
        if output.shape[1] > 1 and output.shape[2] > 1:  # otherwise both orders are the same
            seen.append(output.is_contiguous(memory_format=torch.channels_last))

    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        layer.register_forward_hook(look)
    steps.step([batch()])
    assert len(seen) > 5
    assert all(seen)
