"""Checkpoints: whole or refused, the newest that is whole, K of them, and nothing lost when the disk is full."""

import errno
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch

import training.checkpoints
from cxr.files import InputError
from training.checkpoints import Checkpoints, is_finished, refuse_other_settings, sealed, unsealed

CONTENT = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 2, "names": ["x", "y"], "rate": 1e-4}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_also_by_torch_itself(tmp_path):
    channels_last = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    Checkpoints(tmp_path).save(7, CONTENT | {"image": channels_last})
    for content in (
        Checkpoints(tmp_path).load(),
        torch.load(tmp_path / "training_state.pt", weights_only=True),
    ):
        assert content["step"] == 7
        assert torch.equal(content["weights"]["a"], CONTENT["weights"]["a"])
        assert content["image"].stride() == channels_last.stride()
        assert (content["epoch"], content["names"], content["rate"]) == (2, ["x", "y"], 1e-4)
    assert zipfile.is_zipfile(tmp_path / "training_state.pt")


def test_a_folder_without_any_gives_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing").load() is None


def test_every_flipped_byte_and_every_cut_is_noticed():
    data = sealed({"a": torch.arange(3)})
    assert torch.equal(unsealed(data)["a"], torch.arange(3))
    for position in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[position] ^= 1
        assert unsealed(bytes(flipped)) is None, position
    for position in (*range(len(data) - 70, len(data)), len(data) // 2):
        flipped = bytearray(data)
        flipped[position] ^= 128
        assert unsealed(bytes(flipped)) is None, position
    for length in (0, 1, 60, len(data) // 2, len(data) - 1):
        assert unsealed(data[:length]) is None, length
    assert unsealed(data + b"\0") is None


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_k_are_kept(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep)
    for step in (5, 50, 500, 5000):
        checkpoints.save(step, CONTENT)
    older = ["training_state.000000050.pt", "training_state.000000500.pt"] if keep == 3 else []
    assert names(tmp_path) == [*older, "training_state.pt"]
    assert Checkpoints(tmp_path).load()["step"] == 5000


def test_a_damaged_one_is_passed_over_with_a_warning_and_not_kept(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, CONTENT)
    newest, second = tmp_path / "training_state.pt", tmp_path / "training_state.000000002.pt"
    for path in (newest, second):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    again = Checkpoints(tmp_path, keep=3)
    assert again.load()["step"] == 1
    warnings = capsys.readouterr().err.splitlines()
    assert [str(newest) in warnings[0], str(second) in warnings[1]] == [True, True]
    again.save(2, CONTENT)
    assert Checkpoints(tmp_path).load()["step"] == 2
    assert unsealed((tmp_path / "training_state.000000001.pt").read_bytes())["step"] == 1


def test_when_all_are_damaged_it_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, CONTENT)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="--resume never"):
        Checkpoints(tmp_path).load()
    Checkpoints(tmp_path).clear()
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_checkpoints_as_they_were(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, CONTENT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(3, CONTENT)
    assert Checkpoints(tmp_path).load()["step"] == 2
    assert (tmp_path / "training_state.pt").read_bytes() == before["training_state.pt"]
    monkeypatch.undo()
    checkpoints.save(3, CONTENT)
    assert Checkpoints(tmp_path).load()["step"] == 3


def test_without_hard_links_the_one_before_is_copied(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(training.checkpoints.os, "link", no_links)
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, CONTENT)
    assert unsealed((tmp_path / "training_state.000000001.pt").read_bytes())["step"] == 1


@pytest.mark.parametrize("other", [[1, 2], {"epoch": 1}, {"step": "7"}, {"step": 7.0}, {"step": True}, 3, None])
def test_a_whole_file_of_another_kind_is_passed_over(tmp_path, capsys, other):
    Checkpoints(tmp_path).save(1, CONTENT)
    (tmp_path / "training_state.pt").rename(tmp_path / "training_state.000000001.pt")
    (tmp_path / "training_state.pt").write_bytes(sealed(other))
    assert Checkpoints(tmp_path).load()["step"] == 1
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path / 'training_state.pt'}: damaged") and said.count("\n") == 1


@pytest.mark.parametrize("kind", ["text", "pickle", "empty archive"])
def test_a_seal_around_something_else_is_no_state(kind):
    """Code in a pickle must not run: weights_only refuses it."""
    archive = io.BytesIO()
    if kind == "empty archive":
        zipfile.ZipFile(archive, "w").close()
    elif kind == "pickle":
        torch.save({"step": Path("x")}, archive)
    else:
        archive.write(b"no archive at all\0\0")
    body = archive.getvalue()[:-2]
    seal = (64).to_bytes(2, "little") + hashlib.sha256(body).hexdigest().encode()
    assert unsealed(body + seal) is None


def test_what_cannot_be_deleted_is_a_warning(tmp_path, capsys):
    """A folder in the way of an older state: it can neither be deleted nor replaced."""
    stubborn = [tmp_path / "training_state.000000001.pt/x", tmp_path / "training_state.000000002.pt/x"]
    for path in stubborn:
        path.mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, CONTENT | {"epoch": step})
    assert Checkpoints(tmp_path).load()["epoch"] == 4
    assert unsealed((tmp_path / "training_state.000000003.pt").read_bytes())["epoch"] == 3
    checkpoints.clear()
    warnings = capsys.readouterr().err.splitlines()
    assert warnings and all(line.startswith(f"warning: {tmp_path}/training_state.00000000") for line in warnings)
    assert names(tmp_path) == [path.parent.name for path in stubborn]


def test_deleting_may_be_forbidden_altogether(tmp_path, capsys, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, CONTENT)
    (tmp_path / "training_state.000000000.pt").write_bytes(b"old")
    unlink = Path.unlink

    def forbidden(path, missing_ok=False):
        if path.exists():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", forbidden)
    checkpoints.save(2, CONTENT)
    assert Checkpoints(tmp_path).load()["step"] == 2
    assert "training_state.000000000.pt: cannot be deleted (Operation not permitted)" in capsys.readouterr().err


SETTINGS = {"lr": 1e-4, "label_set": ["a", "b"], "packed_films": None, "compile": False}


def test_the_same_settings_are_the_same_also_out_of_json(tmp_path):
    refuse_other_settings(tmp_path, json.loads(json.dumps(SETTINGS)) | {"of a later version": 1}, SETTINGS)
    assert not is_finished(tmp_path, SETTINGS)
    (tmp_path / "training.json").write_text(json.dumps({"settings": SETTINGS}))
    assert is_finished(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (SETTINGS | {"lr": 1e-3}, "(lr was 0.001 and is 0.0001)"),
        (SETTINGS | {"lr": "x\n\x1b"}, "(lr was 'x\\n\\x1b' and is 0.0001)"),
        (SETTINGS | {"compile": 0}, "(compile was 0 and is False)"),
        (SETTINGS | {"label_set": ["b", "a"]}, "(label_set is another one)"),
        (SETTINGS | {"label_set": torch.zeros(2)}, "(label_set is another one)"),
        (SETTINGS | {"lr": torch.tensor([1e-4, 1e-4])}, "(lr is another one)"),
        ({}, "lr was None and is 0.0001, label_set is another one, compile was None and is False"),
        ([1], "the settings are a list, not a table of names"),
        (None, "the settings are None, not a table of names"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, known, words):
    with pytest.raises(InputError) as caught:
        refuse_other_settings(tmp_path / "training.json", known, SETTINGS)
    assert words in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"settings": []}', "null", "{", '{"settings": {"lr": NaN}}'])
def test_a_record_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(InputError, match=r"training.json\b.*: "):
        is_finished(tmp_path, SETTINGS)
