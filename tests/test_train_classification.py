"""trainClassification.py around its training: options, the results it will write, and the final evaluation."""

import pytest

import cli
import convertWeights
import evalClassification
import trainClassification
from cxr.files import write_json
from tests.training_runs import arguments


@pytest.mark.parametrize(
    "wrong",
    [("--lr", "nan"), ("--lr", "inf"), ("--epochs", "0"), ("--worker-timeout", "-1"), ("--seed", "-1")]
    + [("--workers", "-1")],
    ids=" ".join,
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(wrong, tiny_chexpert, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        trainClassification.main(arguments(tiny_chexpert, tmp_path / "run", *wrong))
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert wrong[0] in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def evaluated(monkeypatch):
    """Arguments of every final evaluation, none of which is made."""
    calls = []
    monkeypatch.setattr(evalClassification, "main", lambda argv: calls.append(argv) or 0)
    monkeypatch.setattr(convertWeights, "describe", lambda weights, results: None)
    return calls


def train(data, root, *more):
    """The exit code of a run in `root`, to be evaluated into `root/results`."""
    command = arguments(data, root / "run", "--epochs", "1", "--results", str(root / "results"), *more)
    command.remove("--no-evaluation")
    return cli.guarded(trainClassification.main, command)


def test_the_evaluation_gets_the_options_of_the_training(evaluated, tiny_chexpert, tmp_path):
    assert train(tiny_chexpert, tmp_path) == 0
    (argv,) = evaluated
    args = evalClassification._parse(argv)
    assert (args.weights, args.output) == (str(tmp_path / "run"), tmp_path / "results")
    assert (args.data, args.device, args.heatmaps) == (tiny_chexpert, "cpu", ["none"])
    assert (args.seed, args.workers, args.batch_size) == (5, 0, 2)


def test_old_results_are_told_before_a_training_and_not_after_it(evaluated, tiny_chexpert, tmp_path, capsys):
    write_json(tmp_path / "results/run.json", {"weights": {"sha256": "0" * 64}})
    said = f"error: {tmp_path / 'results'}: holds results of other weights; delete it or choose another --results\n"
    assert train(tiny_chexpert, tmp_path) == 2
    assert capsys.readouterr().err.endswith(said)
    assert not (tmp_path / "run/training_state.pt").exists()
    assert train(tiny_chexpert, tmp_path, "--no-evaluation") == 0

    assert train(tiny_chexpert, tmp_path) == 0  # complete: its results may be there
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train(tiny_chexpert, tmp_path, "--resume", "never") == 2
    assert capsys.readouterr().err.endswith(said)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == made
    assert len(evaluated) == 1
