"""trainClassification.py --teacher: what the student learns, says of its teacher, resumes, shares and refuses."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch

import cli
import trainClassification
from cxr.dataset import FilmDataset
from cxr.files import sha256
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model
from tests.networks import calibrate
from tests.training_runs import Death, arguments, assert_same_run, run
from training.split_films import read_splits

SIZES = {"patch_size": 16, "image_size": 32}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network of another backbone, whose labels stand in another order."""
    folder = tmp_path_factory.mktemp("weights") / "Teacher"
    torch.manual_seed(1)
    model = build_model("timm/test_resnet", **SIZES, labels=tuple(reversed(CHEXPERT.names)))
    calibrate(model, torch.rand(8, 1, 32, 32))
    with torch.no_grad():
        model.head.weight *= 20
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def taught(tiny_chexpert, teacher, tmp_path_factory):
    """The output folder of a student, trained without a break."""
    output = tmp_path_factory.mktemp("taught") / "student"
    job = run(arguments(tiny_chexpert, output, "--teacher", str(teacher)), output.with_suffix(".log"))
    assert job.wait() == [0], job.said()
    return output


def train(*words) -> int:
    return cli.guarded(trainClassification.main, [str(word) for word in words])


def test_weights_say_where_they_come_from_and_a_run_without_a_teacher_says_nothing(
    taught, teacher, tiny_chexpert, tmp_path
):
    expected = ("Teacher", sha256(teacher / "model.safetensors"))
    config = json.loads((taught / "config.json").read_text())["details"]["training_data"]
    settings = json.loads((taught / "training.json").read_text())["settings"]
    for facts in (config, settings):
        assert (facts["teacher"], facts["teacher_sha256"]) == expected
    card = (taught / "README.md").read_text()
    assert "Teacher" in card and expected[1] in card and str(teacher.parent) not in card
    assert train(*arguments(tiny_chexpert, tmp_path / "alone", "--epochs", "1")) == 0
    assert "teacher" not in (tmp_path / "alone/config.json").read_text() + (tmp_path / "alone/README.md").read_text()


def test_the_student_comes_nearer_to_its_teacher_than_without_it(teacher, tiny_chexpert, tmp_path):
    films = read_splits(tiny_chexpert)[0]
    images = torch.stack([FilmDataset(films, 32).image(i)[0] for i in range(len(films))])
    order = [CHEXPERT.names[::-1].index(name) for name in CHEXPERT.names]
    errors = []
    for name, words in (("taught", ("--teacher", str(teacher))), ("alone", ())):
        assert train(*arguments(tiny_chexpert, tmp_path / name, "--lr", "3e-2", *words)) == 0
        with torch.inference_mode():
            wanted = load_model(teacher).patch_logits(images)[..., order]
            errors.append((load_model(tmp_path / name).patch_logits(images) - wanted).square().mean().item())
    assert errors[0] < 0.8 * errors[1], errors


def test_a_killed_run_ends_with_the_same_bits_and_no_other_teacher_goes_on(
    taught, teacher, tiny_chexpert, tmp_path, capsys
):
    command = arguments(tiny_chexpert, tmp_path / "run", "--teacher", str(teacher), "--checkpoint-minutes", "0")
    assert run(command, tmp_path / "killed", death=Death("step", 11)).wait() == [-signal.SIGKILL]
    other = shutil.copytree(teacher, tmp_path / "elsewhere/Teacher")
    model = load_model(other)
    with torch.no_grad():
        model.head.bias += 1
    save_model(model, other)
    for words, said in (
        (["--teacher", str(other)], "teacher_sha256 was"),
        ([], "teacher was 'Teacher' and is None"),
    ):
        assert train(*arguments(tiny_chexpert, tmp_path / "run", *words)) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1, line
    shutil.rmtree(other)
    shutil.copytree(teacher, other)
    again = run([*command[: command.index("--teacher")], "--teacher", str(other)], tmp_path / "again")
    assert again.wait() == [0] and "going on after step" in again.said()
    assert_same_run(tmp_path / "run", taught)


def test_two_processes_learn_the_weights_that_one_does(teacher, tiny_chexpert, tmp_path):
    options = ("--teacher", str(teacher), "--aggregation", "position", "--epochs", "1")
    two = run(arguments(tiny_chexpert, tmp_path / "two", *options), tmp_path / "two.log", world=2)
    assert two.wait() == [0, 0], two.said()
    assert run(arguments(tiny_chexpert, tmp_path / "one", *options, "--accumulate", "2"), tmp_path / "log").wait() == [
        0
    ]
    one, other = (load_model(tmp_path / name).state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def other_teacher(folder, **changes):
    torch.manual_seed(0)
    options = {**SIZES, "labels": CHEXPERT.names} | changes
    save_model(build_model("timm/test_resnet", **options), folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_size": 32}, "a baseline, whose only patch is the whole film of 32 px"),
        ({"patch_size": 8}, "patches of 8 px in films of 32 px, where the student has 16 in 32"),
        ({"labels": CHEXPERT.names[1:]}, "does not know 'No Finding'; its labels are 'Enlarged Cardiomediastinum'"),
        ({"labels": ("x",)}, "does not know 'No Finding', 'Enlarged Cardiomediastinum'"),
    ],
)
def test_wrong_teachers_are_one_line_and_nothing_is_written(changes, said, tiny_chexpert, tmp_path, capsys):
    wrong = other_teacher(tmp_path / "wrong", **changes)
    assert train(*arguments(tiny_chexpert, tmp_path / "run", "--teacher", wrong)) == 2
    line = capsys.readouterr().err
    assert f"--teacher {wrong}: {said}" in line and line.count("\n") == 1
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize("wrong", ["absent", "empty", "text", "nan", "hub"])
def test_unusable_weights_are_one_line(wrong, teacher, tiny_chexpert, tmp_path, capsys):
    (tmp_path / "text").write_text("no weights")
    model = load_model(teacher)
    with torch.no_grad():
        model.head.bias[3] = torch.nan
    save_model(model, tmp_path / "nan")
    words, said = {
        "absent": (str(tmp_path / "absent"), "no such file or folder of weights"),
        "empty": ("", "--teacher: '' is not a path"),
        "text": (str(tmp_path / "text"), "damaged"),
        "nan": (str(tmp_path / "nan"), "tensor 'head.bias' holds NaN"),
        "hub": ("hf://one", "expected hf://owner/repo"),
    }[wrong]
    try:
        code = train(*arguments(tiny_chexpert, tmp_path / "run", "--teacher", words))
    except SystemExit as caught:  # argparse's
        code = caught.code
    line = capsys.readouterr().err
    assert code == 2 and said in line and line.count("\n") == 1, line


def test_a_baseline_has_nothing_to_learn_of_it(teacher, tmp_path, capsys):
    with pytest.raises(SystemExit):
        trainClassification.main(arguments(tmp_path, tmp_path / "run", "--teacher", str(teacher), "--patch-size", "32"))
    said = capsys.readouterr().err
    assert "--teacher: a baseline of one patch, the whole film, has no patch logits" in said and said.count("\n") == 1
