"""run.json remembers what was finished from what."""

import json

import pytest

from cxr.files import InputError
from cxr.run_record import RunRecord


def test_a_stage_is_done_only_with_the_same_inputs_and_its_files(tmp_path):
    output = tmp_path / "out.csv"
    record = RunRecord(tmp_path)
    with record.stage("predict", {"csv": "a"}):
        output.write_text("x")
    again = RunRecord(tmp_path)
    assert again.is_done("predict", {"csv": "a"}, [output])
    assert not again.is_done("predict", {"csv": "b"}, [output])
    assert not again.is_done("other", {"csv": "a"}, [output])
    output.unlink()
    assert not again.is_done("predict", {"csv": "a"}, [output])
    assert json.loads((tmp_path / "run.json").read_text())["stages"]["predict"]["seconds"] >= 0


def test_a_stage_that_fails_is_not_recorded(tmp_path):
    record = RunRecord(tmp_path)
    with pytest.raises(OSError), record.stage("predict", {}):
        raise OSError
    assert not RunRecord(tmp_path).is_done("predict", {}, [])


def test_results_of_other_weights_are_not_mixed(tmp_path):
    record = RunRecord(tmp_path)
    record.belongs_to("abc")
    record.note({"weights": {"sha256": "abc"}})
    RunRecord(tmp_path).belongs_to("abc")
    with pytest.raises(InputError, match="other weights"):
        RunRecord(tmp_path).belongs_to("def")
