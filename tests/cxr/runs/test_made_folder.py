"""A run replaces what the run before it made, all of it and nothing else."""

import json
import os

import pytest

from cxr.files import InputError
from cxr.runs.made_folder import made_as_a_whole


def make(folder, **files):
    """Writes files, `__` in a name standing for a folder."""
    with made_as_a_whole(folder, "list.json") as making:
        for name, text in files.items():
            path = making / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "list.json"]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_files_of_the_run_before_go_and_those_of_others_stay(tmp_path):
    (tmp_path / "mine").write_text("mine")
    make(tmp_path, a="1", b="1", figures__c="1", pictures__d="1")
    (tmp_path / "figures/mine").write_text("mine")
    make(tmp_path, b="2", e="2")
    assert content(tmp_path) == {"b": "2", "e": "2", "mine": "mine", "figures/mine": "mine"}
    assert json.loads((tmp_path / "list.json").read_text()) == {"files": ["b", "e"]}
    assert not (tmp_path / "pictures").exists()


def test_an_exception_changes_nothing(tmp_path):
    make(tmp_path, a="1")
    with pytest.raises(InputError), made_as_a_whole(tmp_path, "list.json") as making:
        (making / "a").write_text("2")
        raise InputError
    assert content(tmp_path) == {"a": "1"} and sorted(os.listdir(tmp_path)) == ["a", "list.json"]


@pytest.mark.parametrize("moved", range(4))
def test_files_of_a_run_that_was_killed_while_it_moved_them_are_known_to_the_next(tmp_path, monkeypatch, moved):
    make(tmp_path, a="1", b="1")
    replace, left = os.replace, iter(range(moved + 1))

    def dying(source, target):
        if "making" in str(source) and next(left) == moved:
            os._exit(9)
        replace(source, target)

    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", dying)
        make(tmp_path, b="2", c="2", d="2", e="2")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert content(tmp_path)["a"] == "1" and [path.name for path in tmp_path.glob(".*")] == [".list.json.making"]
    make(tmp_path, f="3")
    assert content(tmp_path) == {"f": "3"} and sorted(os.listdir(tmp_path)) == ["f", "list.json"]


@pytest.mark.parametrize("files", [3, [3], ["../a"], ["/a"], [""], ["a\0"], ["a" * 256], None])
def test_a_list_of_another_kind_is_refused_and_removes_nothing(tmp_path, files):
    folder = tmp_path / "made"
    folder.mkdir()
    (tmp_path / "a").write_text("1")
    (folder / "list.json").write_text(json.dumps({"files": files}))
    with pytest.raises(InputError, match="list.json: not a list of files of this program"):
        make(folder, b="2")
    assert (tmp_path / "a").exists() and os.listdir(folder) == ["list.json"]
