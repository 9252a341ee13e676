"""Files appear whole or not at all, and mistakes name the file."""

import os

import pandas as pd
import pytest

from cxr.files import InputError, read_csv, read_json, replacing, sha256, write_csv, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_finished_write_replaces_and_obeys_the_umask(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_text() == "whole"
    assert target.stat().st_mode == plain.stat().st_mode


def test_csv_has_nine_digits_unix_lines_and_empty_undefined(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, pd.DataFrame({"x": [1 / 3, float("nan")], "n": [1, 2]}))
    assert path.read_bytes() == b"x,n\n0.333333333,1\n,2\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"Path,x\n", "no rows"), (b"Path\n1\n", "no column named 'x'"), (b"\xff\xfe\x00", "readable")],
)
def test_read_csv_names_the_file_and_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(path, columns=["Path", "x"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_csv_keeps_strings_and_takes_a_byte_order_mark(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfPath,x\n001,NA\n")
    table = read_csv(path, columns=["Path", "x"])
    assert table.to_dict("records") == [{"Path": "001", "x": "NA"}]


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InputError, match="not a json file"):
        read_json(tmp_path / "c.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "d.json", float("nan"))
    assert not (tmp_path / "d.json").exists()


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
