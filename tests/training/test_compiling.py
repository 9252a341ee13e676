"""Compilation: chosen by device and by what the machine can do, and how torch is asked for it."""

import pytest
import torch
from torch import nn

from cxr.files import InputError
from training import compiling
from training.compiling import choose_compile, compiled, why_not_compiled
from training.distributed import SINGLE_PROCESS, ProcessGroup
from training.workers import plain_failures


@pytest.fixture
def able(monkeypatch):
    monkeypatch.setattr(compiling, "why_not_compiled", lambda device: "")


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cuda", True), (None, "cpu", False), (None, "mps", False), (True, "cpu", True), (False, "cuda", False)],
)
def test_cuda_alone_compiles_unasked(asked, device, expected, able):
    assert choose_compile(asked, device, SINGLE_PROCESS) is expected


class SecondCannot(ProcessGroup):
    def __init__(self, rank):
        super().__init__(rank, 2)

    def all_gather(self, value):
        return [value, "InductorError: no Python.h"]


@pytest.mark.parametrize("rank", [0, 1])
def test_no_process_compiles_where_one_cannot_and_the_first_says_so(rank, able, capsys):
    assert choose_compile(None, "cuda", SecondCannot(rank)) is False
    said = capsys.readouterr().out
    assert said == ("" if rank else "the network is not compiled (InductorError: no Python.h), which would be faster\n")


def test_a_machine_that_cannot_compile_says_why_in_one_line(monkeypatch):
    def failing(function, **options):
        def call(*args):
            raise RuntimeError("no compiler\nTraceback ...")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    assert why_not_compiled("cpu") == "RuntimeError: no compiler"


@pytest.mark.parametrize("deterministic", [True, False])
def test_shapes_are_fixed_and_kernels_not_timed_where_bits_are_promised(deterministic, monkeypatch):
    """The options are torch's own: an unknown one is an error of torch.compile itself."""
    asked = {}
    plain = torch.compile

    def noting(model, **options):
        asked.update(options)
        return plain(model, **options)

    monkeypatch.setattr(torch, "compile", noting)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    found = compiled(net, deterministic=deterministic)
    assert asked == {"dynamic": False, "options": {"deterministic": True} if deterministic else {}}
    assert [id(value) for value in found.parameters()] == [id(value) for value in net.parameters()]


def test_a_network_that_cannot_be_compiled_is_one_line():
    def backend(graph, inputs):
        raise NotImplementedError("no such operation\nand much more")

    words = "this network cannot be compiled (NotImplementedError: no such operation); give --no-compile"
    with pytest.raises(InputError) as caught, plain_failures():
        torch.compile(torch.cos, backend=backend)(torch.ones(3))
    torch._dynamo.reset()
    assert str(caught.value) == words
