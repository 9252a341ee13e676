"""One-line errors and exit codes."""

import argparse

import pytest

import cli
from cxr.files import InputError


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.csv, line 2: bad"), 2, "error: a.csv, line 2: bad\n"),
        (InputError("w.pt: damaged"), 2, "error: w.pt: damaged\n"),
        (OSError(28, "No space left on device", "out/x"), 1, "error: out/x: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_expected_failures_are_one_line(capsys, error, code, message):
    assert cli.guarded(raising(error)) == code
    assert capsys.readouterr().err == message


def test_a_programming_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(raising(ZeroDivisionError()))


def test_wrong_arguments_are_one_line_and_exit_2(capsys):
    parser = cli.parser("does things", "python x.py --size 3")
    parser.add_argument("--size", type=int, default=3, help="pixels")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--size", "many"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert "python x.py --size 3" in parser.format_help()
    assert "pixels (default: 3)" in parser.format_help()


@pytest.mark.parametrize("wrong", ["-1", "4294967296", "1.5", "many"])
@pytest.mark.parametrize("option", ["--seed", "--workers"])
def test_seed_and_workers_are_counts(option, wrong, capsys):
    parser = cli.parser("does things", "python x.py")
    cli.add_seed(parser)
    cli.add_workers(parser)
    assert vars(parser.parse_args(["--seed", "4294967295", "-pr", "0"])) == {"seed": 4294967295, "workers": 0}
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([option, wrong])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert option in told and f"{wrong} is no whole number from 0 to 4294967295" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("cores", "workers"), [(3, 3), (20, 16)])
def test_as_many_workers_as_cores_that_may_be_used(cores, workers, monkeypatch):
    """A batch system gives a job some of the machine's."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    parser = cli.parser("does things", "python x.py")
    cli.add_workers(parser)
    assert parser.parse_args([]).workers == workers


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.pick_device("auto") == "cpu"
    with pytest.raises(InputError, match="no CUDA device"):
        cli.pick_device("cuda")


def test_run_facts_can_be_written_as_json(tmp_path):
    from cxr.files import write_json

    facts = cli.run_facts(argparse.Namespace(data=tmp_path, seed=3, heatmaps=["raw"]), "cpu")
    write_json(tmp_path / "run.json", facts)
    assert facts["seed"] == 3
    assert facts["versions"]["torch"]
