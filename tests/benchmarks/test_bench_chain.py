"""The benchmark of the chain at tiny sizes: every stage does its work, and hours and memory follow from the costs."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

import saliency.export
from benchmarks import bench_chain
from benchmarks.bench_chain import Cost, cost, extrapolated, fewer, prepare
from benchmarks.chain.stages import Sizes, stages

TINY = stages(Sizes(film=232, copy=64, image=64, backbone="timm/test_efficientnet"))
LINEAR = replace(TINY[0], size=100, counts=(10, 30), units=1000, at_once=1000)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """A stage that would be alone in its process leaves these changed."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(saliency.export, "gather_evidence", saliency.export.gather_evidence)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("stage", [stage for stage in TINY if stage.name != "report"], ids=lambda stage: stage.name)
def test_each_stage_does_its_work(stage, tmp_path):
    few = fewer(stage, 0.01)
    prepare(few, tmp_path, few.size, few.counts[0], 1)
    found = cost(few, tmp_path, few.size, few.counts[0], 1)
    assert found.cpu_seconds > 0 and 100 < found.peak_mib < 10_000
    writes = any(word in stage.name for word in ("JPEGs", "evidence files"))
    assert (found.mb > 0.001) == writes


def test_the_stages_have_chexpert_s_numbers():
    units = {stage.name: stage.units for stage in stages(Sizes())}
    assert units["preprocessing to JPEGs"] == 223_414 + 234 + 668
    assert units["training, 20 epochs, steps of 8 films"] == 20 * 223_414
    assert units["evidence, 64 steps"] == 902 * 512**2
    starts = len({*range(0, 512, 3), 511})
    assert units["evidence, every 3 px"] == 902 * (starts**2 + 64), "the unshifted patches are computed besides"


def test_pickles_are_written_for_every_method_protocol_and_task(tmp_path):
    stage = next(stage for stage in TINY if "pickles" in stage.name)
    stage.set_up(tmp_path, 64, 2)(tmp_path)
    assert len(list(tmp_path.rglob("*_map.pkl"))) == 2 * 2 * 2 * 10 and len(list(tmp_path.rglob("*.npz"))) == 2


def test_linear_costs_are_extended_along_their_line():
    row = extrapolated(LINEAR, Cost(3.0, 400, 20), Cost(5.0, 402, 60), Cost(0.75, 390, 5))
    assert row["ms_per_unit"] == pytest.approx(100) and row["fixed_seconds"] == pytest.approx(2)
    assert row["cpu_hours"] == pytest.approx((2 + 1000 * 0.1) / 3600)
    assert row["gb"] == pytest.approx(2.0) and row["size_exponent"] == pytest.approx(2)
    assert row["peak_mib"] == 402 and row["mib_per_1000_units"] == 0


def test_costs_that_grow_faster_are_extended_as_their_power():
    row = extrapolated(LINEAR, Cost(1.0, 400, 0), Cost(9.0, 400, 0), None)
    assert row["growth_exponent"] == pytest.approx(2) and row["size_exponent"] is None
    assert row["cpu_hours"] == pytest.approx((1000 / 10) ** 2 / 3600)
    shared = extrapolated(replace(LINEAR, units=4000), Cost(1.0, 400, 0), Cost(9.0, 400, 0), None)
    assert shared["cpu_hours"] == pytest.approx(4 * row["cpu_hours"]), "four processes of 1000 units each"


def test_memory_that_grows_is_extended_to_the_units_of_one_process():
    row = extrapolated(LINEAR, Cost(1.0, 400, 0), Cost(3.0, 440, 0), None)
    assert row["mib_per_1000_units"] == pytest.approx(2000) and row["peak_mib"] == pytest.approx(440 + 2 * 970)


def test_a_stage_measured_again_replaces_its_row_alone(tmp_path, capsys):
    out = tmp_path / "out.csv"
    given = ["--share", "0.02", "--repeats", "1", "--out", str(out)]
    pd.DataFrame([{"stage": "names of 100,000 films", "cpu_hours": 7.0}, {"stage": "report", "cpu_hours": 5.0}]).to_csv(
        out, index=False
    )
    assert bench_chain.main(["--only", "names", *given]) == 0
    table = pd.read_csv(out).set_index("stage")
    assert list(table.index) == ["report", "names of 100,000 films"], "in the chain's order"
    row = table.loc["names of 100,000 films"]
    assert row["few"] == 500 and row["many"] == 2000 and table.loc["report", "cpu_hours"] == 5
    line = row["cpu_seconds_many"] + row["ms_per_unit"] / 1000 * (100_000 - 2000)
    if row["growth_exponent"] <= bench_chain.NOISE:
        assert row["cpu_hours"] == pytest.approx(line / 3600, rel=1e-6)
    assert row["cpu_hours"] < 1 and row["peak_mib_few"] > 50
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["cpu_hours"]
    assert said["report"] == 5
