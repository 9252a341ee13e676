"""Checkpoints: whole or refused, the newest that is whole, K of them, and nothing lost when the disk is full."""

import errno
import os
import zipfile

import pytest
import torch

import training.checkpoints
from cxr.files import InputError
from training.checkpoints import Checkpoints, sealed, unsealed

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


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    Checkpoints(tmp_path).save(1, CONTENT)
    halves = [tmp_path / ".training_state.pt.abc.tmp", tmp_path / "best/.model.safetensors.xyz.tmp"]
    (tmp_path / "best").mkdir()
    for half in halves:
        half.write_bytes(b"half")
    assert Checkpoints(tmp_path).load()["step"] == 1
    assert not any(half.exists() for half in halves)
