"""The benchmark of dense backbones at tiny settings: its rows and ratios, and that it notices logits that differ."""

import json

import pandas as pd
import pytest

import saliency.patch_maps
from benchmarks import bench_dense

TINY = ["--dense", "dense32", "--image-size", "64", "--patch-size", "32", "--strides", "16", "8", "--repeats", "1"]


def test_rows_and_ratios(tmp_path, capsys):
    assert bench_dense.main([*TINY, "--out", str(tmp_path / "out.csv")]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["way"]) == ["one pass", "patch by patch", "patch by patch"] * 2
    assert list(table["backbone"]) == ["dense32", "dense32", "timm/test_efficientnet"] * 2
    assert list(table["patches"]) == [16] * 3 + [64] * 3
    for _, rows in table.groupby("stride"):
        expected = rows["cpu_seconds"] / rows["cpu_seconds"].iloc[0]
        assert list(rows["ratio"]) == pytest.approx(list(expected), rel=1e-6)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["ratios"]["dense32 one pass, stride 8"] == 1.0
    assert table["largest_difference"].dropna().max() < 1e-5


def test_ways_that_differ_end_the_benchmark_and_leave_the_package_as_it_was(tmp_path, monkeypatch):
    right = saliency.patch_maps.dense_logits
    monkeypatch.setattr(saliency.patch_maps, "dense_logits", lambda *given: right(*given) * 1.01)
    before = saliency.patch_maps.is_dense
    with pytest.raises(RuntimeError, match="stride 16: the two ways differ by 0.0"):
        bench_dense.main([*TINY, "--out", str(tmp_path / "out.csv")])
    assert saliency.patch_maps.is_dense is before
