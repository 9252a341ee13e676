"""The saliency benchmark at tiny settings: its rows and ratios, and that it notices maps that differ."""

import json

import pandas as pd
import pytest
import torch

from benchmarks import bench_saliency
from benchmarks.published import maps as published_maps
from saliency.patch_maps import ShiftGrid, evidence_grid

NETWORK = "timm/test_efficientnet"


def test_rows_ratios_and_the_last_line(tmp_path, capsys):
    tiny = ["--image-size", "128", "--steps", "2", "--memory-patches", "64", "--cam-labels", "2", "--repeats", "1"]
    out = ["--out", str(tmp_path / "out.csv")]
    assert bench_saliency.main(["--backbone", NETWORK, "--cam-backbones", NETWORK, *tiny, *out]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert len(table) == 5 + 2 + 2 and (table["backbone"] == NETWORK).all()
    memory, timed = table[:5], table[5:]
    assert (memory["peak_mib"] > 0).all() and timed["peak_mib"].isna().all()
    assert list(timed["way"]) == ["published", "ours"] * 2
    assert timed["how"].iloc[2] == "extrapolated from 2 of 14 labels"
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    for (_, published), (_, ours) in zip(timed[::2].iterrows(), timed[1::2].iterrows(), strict=True):
        ratio = published["seconds"] / ours["seconds"]
        assert ours["ratio"] == pytest.approx(ratio, rel=1e-6)
        assert ours["cpu_ratio"] == pytest.approx(published["cpu_seconds"] / ours["cpu_seconds"], rel=1e-6)
        assert said["ratios"][f"{ours['what']}, {NETWORK}"] == pytest.approx(ratio, abs=0.051)
        assert ours["largest_difference"] < 1e-4


def test_maps_that_differ_end_the_benchmark(monkeypatch):
    right = published_maps.evidence_map
    monkeypatch.setattr(bench_saliency, "evidence_map", lambda *args, **kind: right(*args, **kind) * 1.01)
    with pytest.raises(RuntimeError, match="the maps differ by 0.0099"):
        bench_saliency.evidence_rows(NETWORK, 128, steps=2, repeats=1)


@pytest.mark.parametrize("steps", [1, 2, 4, 64])
def test_the_published_way_sees_our_shifts(steps):
    grid = ShiftGrid(64, steps, 64)
    ours = [(row - grid.lead) * grid.stride for row in range(grid.n)]
    assert published_maps.shifts_of(64, steps) == [(dy, dx) for dy in ours for dx in ours]


def test_memory_is_read_after_the_patches_asked_for(monkeypatch):
    """With more patches than a thread takes at once; a whole grid of 64 steps would be 65,536 of them."""
    done, threads = [], torch.get_num_threads()

    def counted(*args, progress, **options):
        evidence_grid(*args, progress=lambda count: (done.append(count), progress(count)), **options)

    monkeypatch.setattr(bench_saliency, "evidence_grid", counted)
    bench_saliency.grid_memory(NETWORK, 256, batch_size=1, patches=40)
    assert 40 <= sum(done) < 1000
    assert torch.get_num_threads() == threads
