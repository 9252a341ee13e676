"""Small data for all tests: a CheXpert of noise films in the real formats, and the sample beside the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.clone import SHORT_DEMO, copy_of, copy_project
from tests.clone import run as run_commands
from tests.films import alternating_labels, write_film, write_labels
from tests.hub_server import Hub, running_hub
from tests.stand_ins import lay_stand_ins
from tests.warm_python import warm_python

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "chexlocalize_sample"

torch.set_num_threads(1)  # threads that wait for each other in every layer of a tiny network cost more than they save
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for scripts in processes of their own


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A benchmark under test sets its own number of threads, and results differ with it in the last digit."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def sample() -> Path:
    """CheXlocalize's sample, under a research licence: used where it lies, never copied."""
    if not SAMPLE.is_dir():
        pytest.skip(f"{SAMPLE} is not here")
    return SAMPLE


@pytest.fixture(scope="session")
def tiny_chexpert(tmp_path_factory) -> Path:
    """A preprocessed CheXpert of 64 px noise films: 12 for training, 6 for validation, 6 for test."""
    root = tmp_path_factory.mktemp("data") / "CheXpert-64"
    splits = (("train", "train.csv", 12, 1), ("valid", "valid.csv", 6, 64541), ("test", "test_labels.csv", 6, 64741))
    for split, csv, count, first in splits:
        prefix = "" if split == "test" else "CheXpert-v1.0/"
        inside = [f"{split}/patient{first + i:05d}/study1/view1_frontal.jpg" for i in range(count)]
        for number, name in enumerate(inside):
            write_film(root / name, 64, 64, seed=first + number)
        write_labels(root / csv, [prefix + name for name in inside], alternating_labels(count), split != "test")
    return root


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """A hub on the loopback device that scripts in `demo_clone` and its copies ask."""
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def demo_clone(tmp_path_factory, hub) -> Iterator[Path]:
    """A copy of the project after the short demo of the README. Tests that write into it copy it, with `copy_of`."""
    folder = tmp_path_factory.mktemp("clone") / "MedicalPatchNet"
    copy_project(folder)
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder.parent / "hub"), "MPLBACKEND": "agg"}
    environment |= {"HF_HUB_DISABLE_XET": "1"}  # which the hub of the tests does not speak
    with warm_python(folder / ".venv", environment):
        run_commands(SHORT_DEMO, folder)
        yield folder


@pytest.fixture(scope="session")
def stand_ins(demo_clone, hub, tmp_path_factory) -> Path:
    """A copy of `demo_clone` with stand-ins for what commands read beside the demo."""
    folder = copy_of(demo_clone, tmp_path_factory.mktemp("stand_ins") / "MedicalPatchNet")
    lay_stand_ins(folder, hub)
    return folder
