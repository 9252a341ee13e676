"""History of a run."""

import pandas as pd

from training.state import History


def test_best_is_the_first_highest_and_never_an_undefined_one(tmp_path):
    history = History()
    for epoch, auroc in enumerate([0.6, float("nan"), 0.8, 0.8], start=1):
        history.add_step(epoch, epoch * 1.0, 1e-4)
        history.add_step(epoch, epoch * 3.0, 1e-4)
        history.add_epoch(epoch, auroc)
    assert history.best == {"epoch": 3, "valid_mean_auroc": 0.8}
    history.write(tmp_path)
    epochs = pd.read_csv(tmp_path / "history_epochs.csv")
    assert epochs["train_loss"].tolist() == [2.0, 4.0, 6.0, 8.0]
    steps = pd.read_csv(tmp_path / "history_steps.csv")
    assert steps["step"].tolist() == list(range(1, 9))


def test_best_without_any_defined_value():
    history = History()
    history.add_step(1, 1.0, 0.1)
    history.add_epoch(1, float("nan"))
    assert history.best == {"epoch": 1, "valid_mean_auroc": None}
