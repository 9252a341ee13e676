"""Files appear whole or not at all, and mistakes name the file."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cxr.files import (
    InputError,
    host,
    is_alive,
    is_litter,
    read_json,
    remove_litter,
    replacing,
    sha256,
    write_json,
    write_text,
)


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "holds a list; expected an object"),
        (b"3", "holds 3; expected an object"),
        (b'"' + b"x" * 10**5 + b'"', "holds 'xxx"),
        (b"[" * 10**5, "nested too deeply"),
        (b'{"a":' * 10**5, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": -' + b"1" * 200 + b"}", "a number of 201 digits"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        (b'{"a\x1b": 1, "a\x1b": 2}', r"not a json file"),
        (b'{"a": "\xff"}', "line 1: not a readable json file: not UTF-8"),
        (b'{\n"a": 1,\n}', "line 3: not a json file"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"", "line 1: not a json file"),
        (b"\0\0", "not a json file"),
    ],
)
def test_json_that_cannot_be_used_is_one_short_line(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(error.value).startswith(str(path)) and str(error.value).isprintable() and len(str(error.value)) < 400


def test_json_with_a_byte_order_mark_and_of_another_kind(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[1, 2.5]")
    assert read_json(path, list) == [1, 2.5]
    with pytest.raises(InputError, match="a folder, where a file was expected"):
        read_json(tmp_path)


def test_a_name_that_is_not_utf8_can_be_written(tmp_path):
    write_text(tmp_path / "a.txt", os.fsdecode(b"caf\xe9.png"))
    assert (tmp_path / "a.txt").read_text() == "caf\\udce9.png"
    write_json(tmp_path / "a.json", {"film": os.fsdecode(b"caf\xe9.png")})
    assert os.fsencode(read_json(tmp_path / "a.json")["film"]) == b"caf\xe9.png"


@pytest.mark.parametrize("name", ["x" * 240 + ".png", "ü" * 120 + ".png", os.fsdecode(b"\xff" * 240)])
def test_the_longest_names_can_be_written(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == [name]


def test_a_link_in_the_place_of_the_target_is_replaced_and_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "a").symlink_to(other)
    write_text(tmp_path / "a", "new")
    assert other.read_text() == "kept" and not (tmp_path / "a").is_symlink()


def _temporary_name(name, process):
    return f".{name}.{host()}_{process}_0123abcd.tmp"


def test_litter_of_dead_processes_is_removed_and_nothing_else(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from cxr.files import replacing\n"
        "with replacing(Path(sys.argv[1])): os._exit(9)"
    )
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    assert subprocess.run([sys.executable, "-c", code, str(deep / "x.csv")]).returncode == 9
    (dead,) = deep.iterdir()
    old, young, foreign = (
        deep / name for name in (".x.abcd_123.tmp", ".y.abcd_123.tmp", ".x.elsewhere_1_00000000.tmp")
    )
    for path in (old, young, foreign, deep / "x.tmp", deep / ".notes"):
        path.touch()
    os.utime(old, (time.time() - 10**6,) * 2)
    with replacing(deep / "live.csv") as live:
        assert is_litter(dead) and not is_litter(live)
        assert remove_litter(tmp_path) == 2
        assert live.is_file() and not dead.exists() and not old.exists()
    assert sorted(os.listdir(deep)) == [".notes", ".x.elsewhere_1_00000000.tmp", ".y.abcd_123.tmp", "live.csv", "x.tmp"]


def test_a_killed_process_that_nobody_waited_for_is_dead(tmp_path):
    """In a container, orphans stay in the process table for ever."""
    child = os.fork()
    if not child:
        signal.pause()
    assert is_alive(child)
    litter = tmp_path / _temporary_name("x", child)
    litter.touch()
    assert not is_litter(litter)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert not is_alive(child) and is_litter(litter)
    finally:
        os.waitpid(child, 0)


def test_litter_of_a_process_whose_number_is_used_again(tmp_path):
    litter = tmp_path / _temporary_name("x", os.getpid())
    litter.touch()
    assert not is_litter(litter)
    os.utime(litter, (time.time() - 10**6,) * 2)
    assert is_litter(litter)


def test_litter_is_looked_for_as_deep_as_asked(tmp_path):
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    for folder in (tmp_path, deep.parent, deep):
        (folder / _temporary_name("x", 2**22 + 1)).touch()  # above the largest number of a process
    assert [remove_litter(tmp_path, depth) for depth in (0, 0, 1, None)] == [1, 0, 1, 1]
