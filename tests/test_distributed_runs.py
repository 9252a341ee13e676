"""Scripts in several processes: they make what one makes, and end together when one of them fails."""

import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch

from tests.training_runs import ROOT, Death, Job, arguments, run, state


@pytest.fixture(scope="module")
def trained(tiny_chexpert, tmp_path_factory):
    """Output folders of a run of two processes, and of one process that takes the two halves of a step in turn."""
    root = tmp_path_factory.mktemp("trained")
    batches = ["--batch-size", "4"]  # halves of two films
    for name, world, more in (("two", 2, []), ("one", 1, ["--accumulate", "2"])):
        job = run(arguments(tiny_chexpert, root / name, *batches, *more), root / f"{name}.log", world=world)
        assert job.wait() == [0] * world, job.said()
    return root


def test_two_processes_learn_what_one_does_with_the_same_halves(trained):
    one, two = (pd.read_csv(trained / name / "history_steps.csv") for name in ("one", "two"))
    assert len(one) == 9
    assert (one["loss"] - two["loss"]).abs().max() < 1e-5
    assert one["learning_rate"].equals(two["learning_rate"])
    one, two = (state(trained / name)["weights"] for name in ("one", "two"))
    statistics = [name for name in one if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def chexlocalize(tiny_chexpert, tmp_path_factory):
    """The test films once more, as CheXlocalize lays them out."""
    root = tmp_path_factory.mktemp("chexlocalize")
    shutil.copytree(tiny_chexpert / "test", root / "CheXpert/test")
    shutil.copy(tiny_chexpert / "test_labels.csv", root / "CheXpert/test_labels.csv")
    return root


def evaluation(weights, data, chexlocalize, output):
    folders = ["--weights", weights, "--data", data, "--chexlocalize", chexlocalize, "--output", output]
    small = [
        "--batch-size",
        2,
        "--workers",
        0,
        "--steps-per-patch",
        2,
        "--resamples",
        20,
        "--no-pickles",
        "--device",
        "cpu",
    ]
    return [str(word) for word in (*folders, *small)]


def test_an_evaluation_by_two_processes_writes_the_files_of_one(trained, tiny_chexpert, chexlocalize, tmp_path):
    for world in (1, 2):
        command = evaluation(trained / "one", tiny_chexpert, chexlocalize, tmp_path / f"by{world}")
        job = run(command, tmp_path / f"log{world}", world=world, script="evalClassification")
        assert job.wait() == [0] * world, job.said()
        assert job.said().count("heat maps of 6 films (test; scaled, raw, relative), 6 of them new") == 1
        assert not any("heat maps of" in job.said(rank) for rank in range(1, world))
    made = sorted(path.relative_to(tmp_path / "by1") for path in (tmp_path / "by1").rglob("*") if path.is_file())
    assert made == sorted(p.relative_to(tmp_path / "by2") for p in (tmp_path / "by2").rglob("*") if p.is_file())
    assert [path.suffix for path in made].count(".npz") == 6
    for path in made:
        if path.name != "run.json":
            assert (tmp_path / "by1" / path).read_bytes() == (tmp_path / "by2" / path).read_bytes(), path


def test_a_bad_film_of_one_process_ends_an_evaluation(trained, tiny_chexpert, chexlocalize, tmp_path):
    data = shutil.copytree(tiny_chexpert, tmp_path / "data")
    (data / "valid/patient64544/study1/view1_frontal.jpg").write_bytes(b"no film")  # in the second batch of two
    command = evaluation(trained / "one", data, chexlocalize, tmp_path / "results")
    job = run(command, tmp_path / "log", world=2, script="evalClassification")
    assert job.wait(60) == [1, 2]
    assert "valid.csv, line 5: " in job.said(1)
    assert not (tmp_path / "results/predictions_val.csv").exists()


def last_line(job, rank):
    return job.said(rank).strip().splitlines()[-1]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other(killed, tiny_chexpert, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", "--checkpoint-minutes", "0", "--workers", "1")
    job = Job(command, tmp_path / "log", world=2, death=Death("updated", 5), dying_rank=killed).start()
    left = 1 - killed
    codes = job.wait(60)
    assert (codes[killed], codes[left]) == (-signal.SIGKILL, 1)
    assert last_line(job, left) == f"error: process {left}: another process of this run ended; see its message"
    assert "Traceback" not in job.said(left)
    assert state(tmp_path / "run")["step"] in (4, 5)


def test_a_bad_film_of_one_process_ends_training_with_its_row(tiny_chexpert, tmp_path):
    data = shutil.copytree(tiny_chexpert, tmp_path / "data")
    (data / "train/patient00005/study1/view1_frontal.jpg").write_bytes(b"no film")
    job = Job(arguments(data, tmp_path / "run", "--workers", "1"), tmp_path / "log", world=2).start()
    codes = job.wait(60)
    assert sorted(codes) == [1, 2]
    assert "train.csv, line 6: " in last_line(job, codes.index(2))
    assert "another process of this run ended" in last_line(job, codes.index(1))


def test_different_data_is_refused_by_all(tiny_chexpert, tmp_path, monkeypatch):
    """Each process on a node of its own, whose copies of the label file differ."""
    for rank in range(2):
        data = shutil.copytree(tiny_chexpert, tmp_path / f"node{rank}/data")
    (data / "train.csv").write_text((data / "train.csv").read_text().replace("0.0", "1.0", 1))
    command = arguments("data", tmp_path / "run")
    job = run(command, tmp_path / "log", world=2, folders=[tmp_path / "node0", tmp_path / "node1"])
    assert job.wait(60) == [2, 2]
    assert "error: --data data: options and label files: process 1 has others than process 0" in job.said()


def test_torchrun_trains_and_evaluates(tiny_chexpert, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    more = arguments(tiny_chexpert, tmp_path / "run", "--epochs", "1", "--results", str(tmp_path / "results"))
    more.remove("--no-evaluation")
    done = subprocess.run(
        [*command, str(ROOT / "trainClassification.py"), *more], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training labels: train.csv") == 1
    assert len(pd.read_csv(tmp_path / "results/predictions_test.csv")) == 6
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"training.json", "model.safetensors"} <= left and not any("training_state" in name for name in left)
