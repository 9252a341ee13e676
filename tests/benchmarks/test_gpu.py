"""The GPU benchmark on a CPU: its rows, its time limits; and on fake tensors, that nothing is on another device."""

import json
import time

import pandas as pd
import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.gpu import measures, resumed
from benchmarks.gpu.cases import COMPILED, EAGER, GRAPHS, Case

NETWORK = "timm/test_efficientnet"


def options(*more):
    small = ["--device", "cpu", "--backbones", NETWORK, "--image-size", "32", "--patch-size", "16", "--batches", "2"]
    return [*small, "--steps", "1", *more]


@pytest.fixture
def without_compiling(monkeypatch):
    for module in (measures, resumed):
        monkeypatch.setattr(module, "wrapped", lambda net, mode: net)


def test_every_case_has_its_numbers_and_the_last_line_is_json(tmp_path, capsys, without_compiling):
    assert bench_gpu.main(options("--out", str(tmp_path / "out.csv"))) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(zip(table["what"], table["size"], table["mode"], strict=True)) == [
        ("training", 2, "eager"),
        ("maps", 3, "fp32"),
        ("maps", 1, "fp32"),
        ("resume", 2, "eager"),
        ("maps", 3, "bf16"),
        ("training", 2, "compiled"),
        ("resume", 2, "compiled"),
        ("training", 2, "CUDA graphs"),
        ("maps", 3, "CUDA graphs"),
    ]
    of = table.set_index(["what", "mode"])
    assert (of.loc["training", "films_per_s"] > 0).all() and (of.loc["maps", "seconds_per_film"] > 0).all()
    assert of.loc["resume", "same_bits"].all()
    assert of.loc[("maps", "fp32"), "max_error_percent"].eq(0).all()
    assert 0 < of.loc[("maps", "bf16"), "mean_error_percent"].item() < 20
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["notes"] == {} and last[f"resume, {NETWORK}, 2, eager"] is True
    assert last[f"training, {NETWORK}, 2, eager"] == pytest.approx(table["films_per_s"][0], abs=1e-4)


def test_what_does_not_fit_is_left_out_with_the_reason(tmp_path):
    assert bench_gpu.main(options("--minutes", "0.3", "--out", str(tmp_path / "out.csv"))) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert len(table) == 9 and table["note"].str.contains(r"left out: \d+ s left, \d+ s may be needed").all()


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda *_: time.sleep(9), "stopped after 0 s"), (lambda *_: torch.zeros(2)[5], "IndexError: index 5 is out of")],
)
def test_a_case_that_fails_or_takes_too_long_costs_the_others_nothing(function, words, monkeypatch):
    monkeypatch.setitem(measures.MEASURES, "maps", function)
    monkeypatch.setitem(bench_gpu.SECONDS, EAGER, 0.05)
    args = bench_gpu._parse(options())
    started = time.monotonic()
    found = bench_gpu.measured(Case("maps", NETWORK, 3, "fp32"), args, deadline=started + 1)
    assert found["note"].startswith(words) and time.monotonic() - started < 5


def test_results_go_where_OUT_says(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert bench_gpu._parse([]).out == tmp_path / "bench_gpu.csv"
    monkeypatch.delenv("OUT")
    assert str(bench_gpu._parse([]).out) == "benchmarks/results/bench_gpu.csv"


def test_a_single_bit_is_another_result():
    one = [torch.arange(3.0), torch.ones(2)]
    other = [tensor.clone() for tensor in one]
    assert resumed.same_bits(one, other)
    other[1].view(torch.int32)[0] ^= 1
    assert not resumed.same_bits(one, other) and not resumed.same_bits(one, one[:1])


def test_all_cases_are_there_and_what_is_compiled_comes_last():
    found = bench_gpu.cases(["a", "b"], [16, 64])
    assert len(found) == len(set(found)) == 4 + 4 + 2 + 2 + 4 + 2 + 4
    first = next(place for place, case in enumerate(found) if case.mode in (COMPILED, GRAPHS))
    assert all(case.mode in (COMPILED, GRAPHS) for case in found[first:])
