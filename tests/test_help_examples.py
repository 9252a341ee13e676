"""Every example of every `--help` runs as it is written, in a copy of the project in which the short demo has run.

They run one after the other, each on what those before it made; `tests/stand_ins.py` lays the rest. What is not run
is on a list here, with its reason; its options are then checked alone.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

from tests.clone import ROOT, SHORT_DEMO, run
from tests.test_help import SCRIPTS

ORDER = (
    "preprocessing/makeDemoDataset.py", "preprocessing/preProcCheXpert.py", "preprocessing/makeManifest.py",
    "preprocessing/preProcFilms.py", "trainClassification.py", "fitAggregation.py", "convertWeights.py",
    "evalClassification.py", "tune_heatmap_threshold_opt.py", "evalLocalization.py", "evalFaithfulness.py",
    "predictImage.py", "makeReport.py",
)  # fmt: skip
"""From films to the report: a script's examples read what those of the scripts before it wrote."""

NOT_RUN = {
    "python trainClassification.py --data data/CheXpert-1024 --output savedModels/MedicalPatchNet":
        "20 epochs at 512 px from downloaded weights; ./runDemo.sh trains with fewer",
    "python trainClassification.py --data data/CheXpert-1024 --patch-size 512 --output savedModels/EfficientNetB0":
        "20 epochs at 512 px from downloaded weights; ./runDemo.sh trains with fewer",
    "torchrun --nproc-per-node 4 trainClassification.py --data data/CheXpert-packed "
    "--output savedModels/MedicalPatchNet":
        "four GPUs; tests/test_distributed_runs.py runs two processes on a CPU",
}  # fmt: skip
"""Example -> why it is not run."""

_EVALUATION = "the demo runs the script with settings of its own; tests/test_run_eval.py reads what it starts"
_TRAINING = "the demo runs the script with settings of its own; tests/test_run_training.py reads what it starts"
OF_SHELL_SCRIPTS = {
    "./runDemo.sh": "",
    SHORT_DEMO: "",
    "./runTraining.sh [DATA_DIR] [OPTIONS...]": "usage",
    "./runTraining.sh data --uncertain ignore --frontal-only --track tensorboard": _TRAINING,
    "FILMS=ChestX-ray14 ./runTraining.sh manifests/nih": _TRAINING,
    "./runEval.sh [DATA_DIR [CHEXLOCALIZE_DIR]]": "usage",
    "STEPS_PER_PATCH=16 RESAMPLES=10000 ./runEval.sh data": _EVALUATION,
    "STRIDE=3 WORKERS=8 ./runEval.sh data": _EVALUATION,
    "MAP=nih ./runEval.sh nih-1024": _EVALUATION,
    "./runTests.sh": "runs this test",
    "./runTests.sh tests/saliency -k published": "runs pytest, as this test is run",
    "sbatch slurm/train.sbatch DATA_DIR OUTPUT_DIR [more options of trainClassification.py]": "usage",
    "sbatch --nodes 2 --ntasks-per-node 4 --gres gpu:4 slurm/train.sbatch CheXpert-packed savedModels/MedicalPatchNet":
        "eight GPUs; tests/test_slurm.py runs the job script with stand-ins for Slurm",
}  # fmt: skip
"""Example in the head of a shell script, which its --help prints -> why it is not run; "" for the demo, which is."""


def module_of(script: str):
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


def examples() -> list[tuple[str, str]]:
    """(script, command) of every example, in the order in which they run."""
    texts = ((script, module_of(script).EXAMPLES) for script in ORDER)
    return [(script, command) for script, text in texts for command in re.split(r"\n(?=\S)", text.strip())]


@pytest.mark.parametrize(
    ("script", "command"), [pair for pair in examples() if pair[1] not in NOT_RUN], ids=lambda text: text[-40:]
)
def test_the_example_runs(script, command, stand_ins):
    assert f" {script} " in command
    run(command, stand_ins)


def test_every_script_has_examples_and_every_example_runs_or_has_a_reason():
    found = examples()
    assert set(ORDER) == set(SCRIPTS)
    assert min([script for script, _ in found].count(script) for script in SCRIPTS) >= 2
    assert set(NOT_RUN) <= {command for _, command in found}


def test_every_example_of_a_shell_script_has_a_reason_or_is_the_demo():
    heads = [path.read_text(encoding="utf-8") for path in (*ROOT.glob("run*.sh"), *ROOT.glob("slurm/*.sbatch"))]
    shown = [line for head in heads for line in re.findall(r"^#   (\S.*)", head, re.MULTILINE)]
    assert {re.split(r" {2,}", line)[0] for line in shown} == set(OF_SHELL_SCRIPTS)


class TakenError(Exception):
    """Ends a script whose options were taken."""


@pytest.mark.parametrize("command", NOT_RUN)
def test_the_options_of_the_others_are_taken(command, tmp_path, monkeypatch):
    script = next(script for script, text in examples() if text == command)
    words = shlex.split(command)
    for name in ("data/CheXpert-1024", "data/CheXpert-packed"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    take = argparse.ArgumentParser.parse_args

    def stop(*arguments):
        raise TakenError(take(*arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(TakenError):
        module_of(script).main(words[words.index(script) + 1 :])
