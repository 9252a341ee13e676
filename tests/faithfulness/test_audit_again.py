"""evalFaithfulness.py run again: after it was stopped, for more films, over damaged or lost files."""

import contextlib
import shutil
from pathlib import Path

from saliency.audit import curve_passes
from saliency.audit.curve_files import write_curves
from tests.faithfulness.auditing import (
    FILMS,
    audit,
    copied,
    table,
)


def test_curves_by_forward_passes_are_of_as_many_films_as_are_asked_for(audited, chexlocalize, tmp_path):
    """More films later are added to those that are there, and the tables are then those of the whole at once."""
    results = copied(audited / "baseline", tmp_path / "baseline")
    folder = results / "faithfulness/curves/test"
    shutil.rmtree(folder)
    assert audit(results, "--chexlocalize", chexlocalize, "--curve-films", 0) == 0
    assert not folder.exists()
    reasons = table(results, "faithfulness").query("metric == 'deletion_gain'")["note"].tolist()
    assert len(reasons) == 1 and "--curve-films above 0" in reasons[0]
    assert audit(results, "--chexlocalize", chexlocalize, "--curve-films", 2) == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 2
    summary = table(results, "faithfulness").query("metric == 'insertion_gain' and method == 'cam'")
    assert set(summary[summary["label"] != "Mean"]["films"]) == {2}
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times and len(list(folder.iterdir())) == FILMS // 2
    for name in ("faithfulness", "curves", "films"):
        own, whole = (r / f"faithfulness/{name}_test.csv" for r in (results, audited / "baseline"))
        assert own.read_bytes() == whole.read_bytes()


def test_a_run_that_stops_between_two_films_goes_on_and_ends_with_the_same_bytes(
    audited, chexlocalize, tmp_path, monkeypatch
):
    """No forward pass depends on which films are left."""
    results, written = copied(audited / "baseline", tmp_path / "baseline"), []
    shutil.rmtree(results / "faithfulness/curves")

    def interrupted(path: Path, film) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write_curves(path, film)

    monkeypatch.setattr(curve_passes, "write_curves", interrupted)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        audit(results, "--chexlocalize", chexlocalize)
    (only,) = (results / "faithfulness/curves/test").iterdir()
    time_of_first = only.stat().st_mtime_ns
    monkeypatch.setattr(curve_passes, "write_curves", write_curves)
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert only.stat().st_mtime_ns == time_of_first
    for path in (audited / "baseline/faithfulness").rglob("*.*"):
        assert (results / path.relative_to(audited / "baseline")).read_bytes() == path.read_bytes()


def test_a_damaged_file_of_curves_is_made_again_or_refused(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    damaged = sorted((results / "faithfulness/curves/test").iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert damaged.read_bytes() == whole


def test_what_is_complete_is_not_made_again_and_a_lost_file_is(audited, chexlocalize, tmp_path, capsys):
    results = copied(audited, tmp_path / "results")
    before = {path: path.read_bytes() for path in results.rglob("faithfulness/**/*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in before}
    assert audit(results / "patch", results / "baseline", "--chexlocalize", chexlocalize) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == times
    assert capsys.readouterr().out.count("faithfulness: complete") == 2
    lost = [path for path in before if path.name in ("faithfulness_test.csv", "patient64743_study1_view1_frontal.npz")]
    assert len(lost) == 4  # tables of both networks; effects and curves of a film
    for path in lost:
        path.unlink()
    assert audit(results / "patch", results / "baseline", "--chexlocalize", chexlocalize) == 0
    assert {path: path.read_bytes() for path in before} == before
    kept = [path for path in before if path.suffix == ".npz" and path not in lost]
    assert kept and all(path.stat().st_mtime_ns == times[path] for path in kept)


def test_a_damaged_file_of_forward_passes_is_made_again(audited, chexlocalize, tmp_path):
    results = copied(audited / "baseline", tmp_path / "baseline")
    damaged = sorted((results / "faithfulness/films/test").iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert audit(results, "--chexlocalize", chexlocalize) == 0
    assert damaged.stat().st_size > len(whole) // 2
