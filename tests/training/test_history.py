"""History of a run."""

import math

import pandas as pd
import pytest

from training.history import History


def some_history():
    history = History()
    for epoch, auroc in enumerate([0.6, float("nan"), 0.8, 0.8], start=1):
        history.add_step(epoch, epoch * 1.0, 1e-4, 0.5)
        history.add_step(epoch, epoch * 3.0, 1e-4, 0.25)
        history.add_epoch(epoch, auroc)
    return history


def test_best_is_the_first_highest_and_never_an_undefined_one(tmp_path):
    history = some_history()
    assert history.best == {"epoch": 3, "valid_mean_auroc": 0.8}
    history.write(tmp_path)
    epochs = pd.read_csv(tmp_path / "history_epochs.csv")
    assert epochs["train_loss"].tolist() == [2.0, 4.0, 6.0, 8.0]
    steps = pd.read_csv(tmp_path / "history_steps.csv")
    assert steps["step"].tolist() == list(range(1, 9))
    assert steps["grad_norm"].tolist() == [0.5, 0.25] * 4


def test_best_without_any_defined_value():
    history = History()
    history.add_step(1, 1.0, 0.1, 1.0)
    history.add_epoch(1, float("nan"))
    assert history.best == {"epoch": 1, "valid_mean_auroc": None}


@pytest.mark.parametrize("history", [some_history(), History()])
def test_a_checkpoint_gives_it_back(history):
    restored = History()
    restored.load_state_dict(history.state_dict())
    assert restored.steps == history.steps
    assert [type(value) for row in restored.steps for value in row] == [type(v) for row in history.steps for v in row]
    assert str(restored.epochs) == str(history.epochs)
    assert all(math.isfinite(row[1]) for row in restored.epochs)
