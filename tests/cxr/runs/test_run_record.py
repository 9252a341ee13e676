"""run.json remembers what was finished from what, and a stage is complete only while that still holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.files import InputError, write_json
from cxr.runs.fingerprints import FileState, films_fingerprint
from cxr.runs.run_record import RunRecord

MADE_FROM = {"inputs": {"table": "a"}, "options": {"seed": 0}}


def made(folder, text="x", name="out.csv", **changes):
    record, output = RunRecord(folder), folder / name
    with record.stage("predict", **MADE_FROM | changes, outputs=[output]) as stage:
        output.write_text(text)
        stage.wrote(output)
    return output


def complete(folder, *outputs, **changes):
    return RunRecord(folder).is_complete("predict", **MADE_FROM | changes, outputs=outputs)


def test_a_stage_is_complete_with_the_same_inputs_options_and_outputs_only(tmp_path):
    output = made(tmp_path)
    assert complete(tmp_path, output)
    assert not complete(tmp_path, output, inputs={"table": "b"})
    assert not complete(tmp_path, output, options={"seed": 1})
    assert not complete(tmp_path, output, tmp_path / "run.json")
    assert not RunRecord(tmp_path).is_complete("other", **MADE_FROM, outputs=[output])
    stage = json.loads((tmp_path / "run.json").read_text())["stages"]["predict"]
    assert stage["inputs"] == {"table": "a"} and stage["options"] == {"seed": 0} and stage["seconds"] >= 0
    assert (stage["expected"], stage["done"]) == (1, 1)
    assert stage["outputs"]["out.csv"].startswith("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 ")


@pytest.mark.parametrize("harm", ["delete", "empty", "same size", "same size and time", "folder"])
def test_outputs_that_were_changed_are_not_complete(tmp_path, harm):
    output = made(tmp_path, text="abc")
    before = output.stat()
    if harm == "delete":
        output.unlink()
    elif harm == "folder":
        output.unlink()
        output.mkdir()
    else:
        output.write_text("" if harm == "empty" else "abd")
    if harm == "same size and time":
        os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not complete(tmp_path, output)


def test_a_copied_folder_is_still_complete(tmp_path):
    output = made(tmp_path / "a")
    subprocess.run(["cp", "-r", tmp_path / "a", tmp_path / "b"], check=True)
    assert complete(tmp_path / "b", tmp_path / "b" / output.name)


def test_a_stage_that_fails_is_begun_and_not_complete_and_goes_on_with_what_is_missing(tmp_path):
    files = [tmp_path / f"{index}.txt" for index in range(4)]
    with pytest.raises(OSError), RunRecord(tmp_path).stage("predict", **MADE_FROM, outputs=files) as stage:
        for file in files[:2]:
            file.write_text(file.name)
            stage.wrote(file)
        files[2].write_text("written, but not noted")
        raise OSError
    assert RunRecord(tmp_path).unfinished("pre") == ["predict"]
    assert RunRecord(tmp_path).unfinished("x") == []
    assert not complete(tmp_path, *files[:2])
    files[1].write_text("")
    with RunRecord(tmp_path).stage("predict", **MADE_FROM, outputs=files) as stage:
        missing = [file for file in files if not stage.holds(file)]
        assert missing == files[1:]
        for file in missing:
            file.write_text(file.name)
            stage.wrote(file)
    assert complete(tmp_path, *files) and RunRecord(tmp_path).unfinished() == []
    assert sorted(os.listdir(tmp_path)) == ["0.txt", "1.txt", "2.txt", "3.txt", "run.json"]


KILLED = """
import os, sys
from pathlib import Path
from cxr.runs.run_record import RunRecord
folder = Path(sys.argv[1])
with RunRecord(folder).stage("predict", inputs={"table": "a"}, options={"seed": 0}, outputs=[folder / "a"]) as stage:
    (folder / "a").write_text("made")
    stage.wrote(folder / "a")
    os._exit(9)
"""


def test_what_a_killed_process_noted_holds_and_a_torn_line_of_its_journal_does_not(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path]).returncode == 9
    (journal,) = tmp_path.glob(".run.*.journal")
    with open(journal, "a") as handle:
        handle.write('["b", "' + "0" * 64)
    (tmp_path / "b").write_text("")
    with RunRecord(tmp_path).stage("predict", **MADE_FROM, outputs=[tmp_path / "a"]) as stage:
        assert stage.holds(tmp_path / "a") and not stage.holds(tmp_path / "b")
        (tmp_path / "c").write_text("")
        stage.wrote(tmp_path / "c")
        other = RunRecord(tmp_path, rank=1)
        with other.stage("predict", **MADE_FROM | {"options": {"seed": 1}}, outputs=[tmp_path / "a"]) as of_other_seed:
            assert not of_other_seed.holds(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "run.json"]


def test_a_stage_with_fewer_files_than_expected_is_not_complete(tmp_path):
    with RunRecord(tmp_path).stage("predict", **MADE_FROM, outputs=[tmp_path / "a", tmp_path / "b"]) as stage:
        (tmp_path / "a").write_text("")
        stage.wrote(tmp_path / "a")
    assert not complete(tmp_path, tmp_path / "a") and RunRecord(tmp_path).unfinished() == ["predict"]


def test_more_of_a_stage_adds_to_it_and_other_inputs_replace_it(tmp_path):
    for method in ("raw", "gradcam"):
        made(tmp_path, name=method)
    assert complete(tmp_path, tmp_path / "raw", tmp_path / "gradcam")
    kept = made(tmp_path, name="mine")
    kept.write_text("edited by hand")
    made(tmp_path, name="raw", inputs={"table": "b"})
    assert sorted(os.listdir(tmp_path)) == ["mine", "raw", "run.json"]
    assert complete(tmp_path, tmp_path / "raw", inputs={"table": "b"})
    assert not complete(tmp_path, tmp_path / "raw")


def test_a_record_cannot_make_the_next_run_delete_files_elsewhere(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("x")
    made(tmp_path / "results")
    record = json.loads((tmp_path / "results/run.json").read_text())
    states = record["stages"]["predict"]["outputs"]
    states["../outside"] = states[str(outside)] = str(FileState.of(outside))
    write_json(tmp_path / "results/run.json", record)
    made(tmp_path / "results", inputs={"table": "b"})
    assert outside.read_text() == "x"


def test_several_processes_make_one_stage(tmp_path):
    outputs = [tmp_path / f"{rank}" for rank in range(3)]
    records = [RunRecord(tmp_path, rank) for rank in range(3)]
    contexts = [record.stage("predict", **MADE_FROM, outputs=outputs) for record in records]
    for output, stage in zip(outputs, [context.__enter__() for context in contexts], strict=True):
        output.write_text(output.name)
        stage.wrote(output)
    for context in reversed(contexts):
        context.__exit__(None, None, None)
    assert complete(tmp_path, *outputs)
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "run.json"]


def test_facts_are_written_with_their_stage_and_nothing_of_another_record_is_lost(tmp_path):
    first, second = RunRecord(tmp_path), RunRecord(tmp_path)
    first.note({"device": "cpu"})
    for split in ("val", "test"):
        with second.stage(split, inputs={}, options={}, outputs=[]) as stage:
            stage.note({"films": {split: 3}, "grey": "stored"})
    with pytest.raises(OSError), second.stage("train", inputs={}, options={}, outputs=[]) as stage:
        stage.note({"films": {"train": 3}})
        raise OSError
    first.note({"seed": 0})
    content = RunRecord(tmp_path).content
    assert content["device"] == "cpu" and content["seed"] == 0
    assert content["films"] == {"val": 3, "test": 3} and content["grey"] == "stored"


def test_what_a_stage_wrote_is_required_as_a_whole(tmp_path):
    record = RunRecord(tmp_path)
    record.require_whole("predict", "heat maps", "run it again")
    files = [made(tmp_path, name=name) for name in ("a", "b")]
    RunRecord(tmp_path).require_whole("predict", "heat maps", "run it again")
    files[1].unlink()
    with pytest.raises(InputError, match=r"its heat maps are missing or changed \(1 of 2 files, 'b' .*run it again"):
        RunRecord(tmp_path).require_whole("predict", "heat maps", "run it again")
    with pytest.raises(OSError), RunRecord(tmp_path).stage("predict", **MADE_FROM, outputs=files):
        raise OSError
    with pytest.raises(InputError, match="its heat maps are not complete; run it again"):
        RunRecord(tmp_path).require_whole("predict", "heat maps", "run it again")


def test_results_of_another_network_are_not_mixed(tmp_path):
    model = {"patch_size": 64, "image_size": 512, "labels": ["a", "b"]}
    RunRecord(tmp_path).belongs_to("abc", model)
    RunRecord(tmp_path).note({"weights": {"sha256": "abc"}, "model": model})
    RunRecord(tmp_path).belongs_to("abc", model | {"labels": ("a", "b"), "details": 3})
    with pytest.raises(InputError, match="other weights; delete it or choose another --results"):
        RunRecord(tmp_path).belongs_to(None, option="--results")
    with pytest.raises(InputError, match=r"these weights as another network \(patch_size 64\)"):
        RunRecord(tmp_path).belongs_to("abc", model | {"patch_size": 512})
    with pytest.raises(InputError, match=r"\(other labels\)"):
        RunRecord(tmp_path).belongs_to("abc", model | {"labels": ["b", "a"]})


def test_other_options_can_be_refused(tmp_path):
    made(tmp_path)
    RunRecord(tmp_path).check_options("predict", {"seed": 0}, "heat maps")
    with pytest.raises(InputError, match=r"its heat maps were made with other settings \(seed: 0, now 1\)"):
        RunRecord(tmp_path).check_options("predict", {"seed": 1}, "heat maps")
    with pytest.raises(InputError, match=r"its heat maps were made with other settings \(stride: none, now 3\)"):
        RunRecord(tmp_path).check_options("predict", {"seed": 0, "stride": 3}, "heat maps")
    with pytest.raises(InputError, match=r"its heat maps were made with other settings \(seed: 0, now none\)"):
        RunRecord(tmp_path).check_options("predict", {}, "heat maps")


def test_a_file_that_was_changed_since_it_was_made_is_named(tmp_path):
    output = made(tmp_path)
    RunRecord(tmp_path).check_unchanged(output)
    RunRecord(tmp_path).check_unchanged(tmp_path / "elsewhere")
    output.write_text("y")
    with pytest.raises(InputError, match=r"out.csv: changed since it was made \(run.json, 'predict'\)"):
        RunRecord(tmp_path).check_unchanged(output)


def test_the_record_of_an_older_version_protects_its_weights_and_completes_nothing(tmp_path):
    (tmp_path / "out.csv").write_text("x")
    stages = {"predict": {"made_from": {"csv": "a"}, "seconds": 3.0}}
    write_json(tmp_path / "run.json", {"weights": {"sha256": "abc"}, "stages": stages, "settings": {}})
    record = RunRecord(tmp_path)
    assert not record.is_complete("predict", **MADE_FROM, outputs=[tmp_path / "out.csv"])
    assert record.unfinished() == [] and record.outputs("predict") == {}
    with pytest.raises(InputError, match="other weights"):
        record.belongs_to("def")
    made(tmp_path)
    assert complete(tmp_path, tmp_path / "out.csv")


ODD = [None, 3, "x", [], {}, {"predict": 3},
       {"predict": {"outputs": 3, "fingerprint": [], "facts": [], "seconds": "x"}},
       {"predict": {"outputs": {"a": 3, "b": "x y z w", "c": "0" * 64 + " 1 2 -3"}}}]  # fmt: skip


@pytest.mark.parametrize("odd", range(len(ODD)))
def test_parts_of_other_kinds_count_as_absent(tmp_path, odd):
    write_json(tmp_path / "run.json", {"stages": ODD[odd], "weights": ODD[odd], "model": 3})
    record = RunRecord(tmp_path)
    record.belongs_to("abc", {"patch_size": 64})
    record.unfinished()
    record.check_unchanged(tmp_path / "run.json")
    made(tmp_path)
    assert complete(tmp_path, tmp_path / "out.csv")
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="run.json: holds a list"):
        RunRecord(tmp_path)


def test_a_fingerprint_of_films_changes_with_every_replaced_film(tmp_path):
    films = [tmp_path / "data" / f"{index}.jpg" for index in range(3)]
    films[0].parent.mkdir()
    for film in films:
        film.write_bytes(b"abc")
    before = films_fingerprint(films, films[0].parent)
    assert before == films_fingerprint(films, films[0].parent) and before["count"] == 3
    assert films_fingerprint(films[:2], films[0].parent) != before
    os.utime(films[1], ns=(0, films[1].stat().st_mtime_ns + 1))
    assert films_fingerprint(films, films[0].parent) != before
    with pytest.raises(InputError, match="gone.jpg: no such film"):
        films_fingerprint([tmp_path / "gone.jpg"], Path(tmp_path))
