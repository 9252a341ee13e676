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

from tests.clone import run
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
