"""What goes wrong around a run ends it in one line, its checkpoints whole; then it goes on to the very same end."""

import json
import os
import re

import numpy as np
import pytest

import cli
import trainClassification
from tests.films import alternating_labels, write_film, write_labels
from tests.training_runs import Death, Job, arguments, assert_same_run, run, state
from training.engine import Stepper

OFTEN = ("--checkpoint-minutes", "0")


@pytest.fixture(scope="module")
def uninterrupted(tiny_chexpert, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    job = run(arguments(tiny_chexpert, output), output.with_suffix(".log"))
    assert job.wait() == [0], job.said()
    return output


def fails(command, tmp_path, death):
    """Exit code and last line of a run that meets its fate; it must say no more than that line."""
    job = Job(command, tmp_path / "failed", death=death).start()
    (code,) = job.wait()
    assert "Traceback" not in job.said(), job.said()
    said = [line for line in job.said().splitlines() if line.startswith(("error", "warning"))]
    assert len(said) == 1
    return code, said[0]


def goes_on(command, tmp_path, uninterrupted):
    job = run(command, tmp_path / "again")
    assert job.wait() == [0], job.said()
    assert "going on after step" in job.said()
    assert "damaged" not in job.said()
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize(
    ("step", "more", "file"),
    [(8, OFTEN, "training_state.pt"), (12, (), "model.safetensors")],  # within epoch 2, and at its end
)
def test_a_full_disk(step, more, file, tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", *more)
    code, said = fails(command, tmp_path, Death("updated", step, fate="full disk"))
    assert (code, said) == (1, f"error: {tmp_path / 'run' / file}: File too large")
    assert state(tmp_path / "run")["step"] == (7 if more else 6)
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    goes_on(command, tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("death", "words"),
    [
        (Death("updated", 8, fate="worker dies"), "a worker process died while reading films"),
        (Death("read", 3), "a worker process died while reading films"),
        (Death("read", 3, fate="hangs"), "a worker process hangs while reading films"),
    ],
)
def test_a_worker_that_dies_or_hangs(death, words, tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", *OFTEN, "--workers", "2")
    code, said = fails([*command, "--worker-timeout", "5"], tmp_path, death)
    assert code == 1
    assert said.startswith(f"error: {words}")
    assert state(tmp_path / "run")["step"] >= 6
    goes_on(command, tmp_path, uninterrupted)


def test_a_loss_that_is_not_finite_stops_before_its_update(tiny_chexpert, tmp_path, capsys):
    """An update that throws the weights to the end of the numbers makes the loss after it infinite."""
    command = arguments(tiny_chexpert, tmp_path / "run", *OFTEN, "--lr", "1e30")
    assert cli.guarded(trainClassification.main, command) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    found = re.fullmatch(
        r"error: (\S+), lines (\d+), (\d+): step (\d+): loss \S+, gradient norm \S+ with these films; .*", said
    )
    assert found[1] == str(tiny_chexpert / "train.csv")
    step = int(found[4])
    order = np.random.default_rng((5, 1)).permutation(12)  # seed 5, epoch 1; two films a step
    assert [int(row) for row in found.group(2, 3)] == [film + 2 for film in order[2 * step - 2 : 2 * step]]
    kept = state(tmp_path / "run")
    assert kept["step"] == step - 1
    assert all(tensor.isfinite().all() for tensor in kept["weights"].values())


def test_an_output_that_cannot_be_written_is_told_before_training(tiny_chexpert, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.guarded(trainClassification.main, arguments(tiny_chexpert, tmp_path / "file/run")) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {tmp_path / 'file/run'}: Not a directory\n"


def lists_bad_films(root, count, bad):
    """A CheXpert of `count` times the same film, of which those of the numbers `bad` are none."""
    write_film(root / "train/patient00000/study1/view1_frontal.jpg", 64, 64)
    paths = [f"train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(count)]
    for number, path in enumerate(paths[1:], start=1):
        (root / path).parent.mkdir(parents=True)
        if number in bad:
            (root / path).write_bytes(b"no film")
        else:
            os.link(root / paths[0], root / path)
    write_labels(root / "train.csv", [f"CheXpert-v1.0/{path}" for path in paths], alternating_labels(count))
    validation = [f"valid/patient6454{i}/study1/view1_frontal.jpg" for i in (1, 2)]
    for seed, path in enumerate(validation, start=1):
        write_film(root / path, 64, 64, seed)
    write_labels(root / "valid.csv", [f"CheXpert-v1.0/{path}" for path in validation], alternating_labels(2))
    return root


def train_on(data, output, *more):
    big = ("--batch-size", "100", "--epochs", "1", "--image-size", "32", "--patch-size", "32")
    return cli.guarded(trainClassification.main, arguments(data, output, *big, *more))


def test_a_bad_film_stops_or_is_listed_and_two_in_a_thousand_are_too_many(tmp_path, capsys):
    one = lists_bad_films(tmp_path / "one", 1000, {500})
    two = lists_bad_films(tmp_path / "two", 1000, {400, 500})
    place = f"{one / 'train.csv'}, line 502: {one / 'train/patient00500/study1/view1_frontal.jpg'}"

    assert train_on(one, tmp_path / "stopped", "--workers", "1") == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert said.startswith(f"error: {place}: ")
    assert not (tmp_path / "stopped/training.json").exists()

    assert train_on(one, tmp_path / "skipped", "--on-bad-image", "skip", "--workers", "1") == 0
    (listed,) = json.loads((tmp_path / "skipped/training.json").read_text())["unreadable_films"]
    assert (listed["line"], listed["path"]) == (502, "CheXpert-v1.0/train/patient00500/study1/view1_frontal.jpg")
    assert listed["reason"].startswith(place)
    assert state(tmp_path / "skipped")["step"] == 10

    capsys.readouterr()
    assert train_on(two, tmp_path / "too many", "--on-bad-image", "skip") == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "2 of 1000 films cannot be read, more than 0.1%; the first: " in said


def test_a_left_out_film_is_left_out_of_the_batch_only(tmp_path, monkeypatch):
    """Every other film is seen once, and none twice."""
    data = lists_bad_films(tmp_path / "data", 1000, {500})
    seen = []
    step = Stepper.step

    def noting(self, batches):
        seen.extend(film for batch in batches for film in batch.films.tolist())
        step(self, batches)

    monkeypatch.setattr(Stepper, "step", noting)
    assert train_on(data, tmp_path / "run", "--on-bad-image", "skip") == 0
    assert sorted(seen) == [*np.delete(np.arange(1000), 500)]
