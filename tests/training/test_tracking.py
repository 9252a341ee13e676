"""Trackers: lines that survive an interruption, and services that are asked for."""

import json
import sys
import types

import pytest

from cxr.files import InputError
from training.history import JsonLines, open_trackers


def step(number, epoch=1, loss=0.5):
    return {"step": number, "epoch": epoch, "loss": loss, "learning_rate": 1e-4, "grad_norm": 2.0}


def epoch(number, at):
    return {"step": at, "epoch": number, "train_loss": 0.5, "valid_mean_auroc": 0.7, "films_per_second": 9.0}


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def write(folder, rows, steps=0, epochs=0):
    tracker = JsonLines(folder, steps, epochs)
    for row in rows:
        (tracker.epoch if "train_loss" in row else tracker.step)(row)
    return tracker


def test_lines_are_there_at_once_and_not_finite_is_null(tmp_path):
    write(tmp_path, [step(1), step(2, loss=float("nan"))])  # not closed
    assert lines(tmp_path) == [step(1), step(2) | {"loss": None}]


def test_a_resumed_run_writes_what_came_after_its_checkpoint_again(tmp_path):
    rows = [step(1), step(2), epoch(1, at=2), step(3, 2), step(4, 2)]
    write(tmp_path, rows).close()
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 5, "epo')  # killed here
    write(tmp_path, rows[4:], steps=3, epochs=1).close()
    assert lines(tmp_path) == rows
    write(tmp_path, rows[2:], steps=2, epochs=0).close()  # a checkpoint before the validation of epoch 1
    assert lines(tmp_path) == rows


def test_a_fresh_run_starts_a_fresh_file(tmp_path):
    write(tmp_path, [step(1)]).close()
    write(tmp_path, []).close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize(("service", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_service_that_is_not_installed_is_one_line(tmp_path, monkeypatch, service, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"--track {service}: not installed; pip install {service}"):
        open_trackers([service], tmp_path, {}, 0, 0)


class Recorder:
    def __init__(self, **options):
        self.options, self.calls = options, []

    def __getattr__(self, name):
        return lambda *values, **options: self.calls.append((name, *values, options))


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_wandb_stays_offline_without_a_login(tmp_path, monkeypatch, environment, mode):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb = types.SimpleNamespace(init=Recorder)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _, tracker = open_trackers(["wandb"], tmp_path, {"lr": 1.0}, 0, 0)
    assert tracker._run.options["mode"] == mode
    assert tracker._run.options["config"] == {"lr": 1.0}
    tracker.step(step(3))
    tracker.close()
    assert tracker._run.calls == [("log", step(3), {"step": 3}), ("finish", {})]


def test_tensorboard_takes_every_value_and_forgets_what_comes_after_the_checkpoint(tmp_path, monkeypatch):
    made = []

    def writer(folder, **options):
        made.append(Recorder(folder=folder, **options))
        return made[-1]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=writer))
    _, tracker = open_trackers(["tensorboard"], tmp_path, {}, 40, 1)
    assert made[0].options == {"folder": str(tmp_path / "tensorboard"), "purge_step": 41}
    tracker.step(step(41))
    tracker.epoch(epoch(2, at=41))
    assert ("add_scalar", "loss", 0.5, 41, {}) in made[0].calls
    assert ("add_scalar", "valid_mean_auroc", 0.7, 41, {}) in made[0].calls
