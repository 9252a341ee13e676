"""The benchmark of thresholds at a tiny size: its rows, and that it notices searches that disagree."""

import itertools

import pandas as pd
import pytest

from benchmarks import bench_thresholds, measure
from benchmarks.measure import least

TINY = ["--films", "48x60"]


def test_rows_of_both_countings_and_their_ratios(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_thresholds, "CASES", ((1, 10, True), (2, 5, False)))
    assert bench_thresholds.main([*TINY, "--out", str(tmp_path / "out.csv")]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["way"]) == ["published", "ours, exact"] * 2 and set(table["film"]) == {"48x60"}
    assert list(table["true_pos_only"]) == [True, True, False, False] and list(table["maps"]) == [10, 10, 20, 20]
    published, ours = table[::2].reset_index(), table[1::2].reset_index()
    ratios = published["cpu_seconds"] / ours["cpu_seconds"]
    assert list(ours["cpu_ratio"]) == pytest.approx(list(ratios), rel=1e-6)
    assert (ours["mean_miou"] >= published["mean_miou"]).all(), "the exact search is never worse"


def test_searches_that_disagree_end_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_thresholds, "CASES", ((1, 10, True),))
    monkeypatch.setattr(bench_thresholds, "iou_of_file", lambda *_: 0.5)
    with pytest.raises(RuntimeError, match="the two searches disagree"):
        bench_thresholds.main([*TINY, "--out", str(tmp_path / "out.csv")])


def test_seconds_of_all_thresholds_follow_from_the_quickest(monkeypatch):
    """Three thresholds are tried in the first round, of 3, 1 and 2 seconds."""
    clock = itertools.accumulate([0, 3, 0, 1, 0, 2])
    now = iter(list(clock))
    monkeypatch.setattr(measure.time, "process_time", lambda: next(now))
    monkeypatch.setattr(bench_thresholds, "iou_of_file", lambda path, codes, threshold, _: threshold)
    best, seconds = bench_thresholds.published_search(["a map"], {}, True, rounds=1)
    assert best == 0.75 and seconds["cpu_seconds"] == 21 * 1


def test_the_least_of_several_runs_is_taken(monkeypatch):
    now = iter([0.0, 5.0, 5.0, 7.0, 7.0, 10.0])
    monkeypatch.setattr(measure.time, "process_time", lambda: next(now))
    results = iter("abc")
    last, seconds = least(lambda: next(results), 3)
    assert last == "c" and seconds["cpu_seconds"] == 2
