"""Training steps and maps with fake CUDA tensors, which need no GPU: an operation on two devices is an error.

A backward pass needs a real device, so that its gradients are laid down here.
"""

import argparse

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from benchmarks.gpu.cases import Case, network, noise
from benchmarks.training.loops import RATE
from saliency import patch_maps
from saliency.evidence.folded_network import FoldedNetwork
from training.engine import Precision, Stepper, one_cycle

SIDE = 64
SETTINGS = argparse.Namespace(device="cpu", patch_size=32, image_size=SIDE)


@pytest.fixture
def model():
    return network(Case("", "timm/test_efficientnet", 0, ""), SETTINGS)


@pytest.fixture
def on_cuda(model):
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield model.to_empty(device="cuda")


def stepper(model, monkeypatch, precision="fp32"):
    def backward(loss):
        assert loss.device.type == "cuda" and loss.shape == ()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    return Stepper(model, optimizer, one_cycle(optimizer, RATE, 10), Precision("cuda", precision), seed=0)


def test_a_training_step_stays_on_the_gpu_and_takes_its_films_there(on_cuda, monkeypatch):
    steps = stepper(on_cuda, monkeypatch)
    for _ in range(2):  # the optimiser's first step makes its state
        steps.step([noise(2, SIDE, "cpu"), noise(2, SIDE, "cpu")])
    state = steps.optimizer.state[on_cuda.head.weight]
    assert {tensor.device.type for tensor in state.values()} == {"cuda"}
    assert (
        {row.loss.device.type for row in steps._unread}
        == {row.grad_norm.device.type for row in steps._unread}
        == {"cuda"}
    )
    assert steps.unread == 2


def test_a_weight_left_on_the_cpu_is_found(on_cuda, monkeypatch):
    on_cuda.head = torch.nn.Linear(on_cuda.head.in_features, 14)
    with pytest.raises(RuntimeError, match=r"cuda.*cpu|cpu.*cuda"):
        stepper(on_cuda, monkeypatch).step([noise(2, SIDE, "cpu")])


@pytest.mark.parametrize("stride", [1, 9])
def test_evidence_is_computed_on_the_gpu_and_comes_back(stride, model, monkeypatch):
    image = torch.rand(1, SIDE, SIDE)
    folded = FoldedNetwork(model)  # folding compares outputs, which fake tensors do not have
    seen = []
    folded.register_forward_hook(lambda m, inputs, output: seen.append((inputs[0].device.type, output.device.type)))
    monkeypatch.setattr(patch_maps, "folded_network", lambda network: folded)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cuda")
        folded.to_empty(device="cuda")
        grid = patch_maps.evidence_grid(model, image, steps_per_patch=32, batch_size=4, stride=stride)
    assert grid.device.type == "cpu" and grid.shape == (14, *[64 if stride == 1 else 8] * 2)
    assert set(seen) == {("cuda", "cuda")} and len(seen) > 1
