"""Every file format that the project reads: a good file, its reader, mutants, and what reading one comes to.

Each mutant is read in a forked process with limits on seconds and memory, so that a crash of the interpreter is seen.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import cli
from cxr.files import read_json, write_json
from cxr.heat_maps import read_film_pixels, read_heat_map, write_heat_map
from cxr.images import open_film
from cxr.labels import CHEXPERT
from cxr.manifest import read_films
from cxr.masks import encode_mask, read_ground_truth
from cxr.packed import damaged_films, open_packed
from cxr.predictions import Predictions, read_predictions, write_predictions
from cxr.runs.run_record import RunRecord
from cxr.tables import read_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from models.checkpoint import build_model, load_model, save_model
from preprocessing import preProcCheXpert
from tests.dicom_films import write_dicom
from tests.films import film_pixels, write_film
from training.checkpoints import Checkpoints

SECONDS, MEMORY = 20, 3 * 2**30  # beyond what the process holds already

NEXT_LINE = " \u23ce "

FILM = "patient64541_study1_view1_frontal"
TASK = "Edema"

Format = tuple[Callable[[Path, Path], Path], Callable[[Path], object]]
"""Writes a good file into a folder (given also the small CheXpert) and returns it; reads it as the scripts do."""


def heat_map(folder: Path, _: Path) -> Path:
    path = folder / f"{FILM}_{TASK}_map.pkl"
    plane = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    facts = {"probability": 0.5, "task": TASK, "ground_truth": 1, "film_size": (50, 60), "film_pixels": plane}
    write_heat_map(path, map=plane, **facts)
    return path


def regions(folder: Path, _: Path) -> Path:
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:9, 4:20] = True
    write_json(folder / "gt.json", {FILM: dict.fromkeys(CHEXPERT.tasks.values(), encode_mask(mask))})
    return folder / "gt.json"


def predictions(folder: Path, _: Path) -> Path:
    names = tuple(f"CheXpert-v1.0/valid/patient6454{i}/study1/view1_frontal.jpg" for i in range(4))
    values = np.random.default_rng(0).random((4, len(CHEXPERT.names)))
    write_predictions(folder / "p.csv", Predictions(names, values, (values > 0.5).astype(float), CHEXPERT))
    return folder / "p.csv"


def thresholds(folder: Path, _: Path) -> Path:
    write_thresholds(folder / "t.json", Thresholds(dict.fromkeys(CHEXPERT.names, 0.25)))
    return folder / "t.json"


def record(folder: Path, _: Path) -> Path:
    (folder / "a.csv").write_text("a\n1\n")
    of_folder = RunRecord(folder)
    with of_folder.stage("a", inputs={"x": 1}, options={}, outputs=[folder / "a.csv"]) as stage:
        stage.wrote(folder / "a.csv")
    of_folder.note({"weights": {"sha256": "0" * 64}, "model": {"patch_size": 64}})
    return folder / "run.json"


def read_record(path: Path) -> None:
    of_folder = RunRecord(path.parent)
    of_folder.belongs_to("0" * 64, {"patch_size": 64})
    of_folder.check_unchanged(path.parent / "a.csv")
    with of_folder.stage("a", inputs={"x": 1}, options={}, outputs=[]):
        pass


def label_table(folder: Path, chexpert: Path) -> Path:
    shutil.copytree(chexpert / "valid", folder / "valid")
    return Path(shutil.copy(chexpert / "valid.csv", folder / "valid.csv"))


def packed(suffix: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, chexpert: Path) -> Path:
        out = folder / "packed"
        command = ["--chexpert", str(chexpert), "--output", str(out), "--size", "32", "--workers", "1", "--packed"]
        assert preProcCheXpert.main(command) == 0
        return out / f"valid{suffix}"

    return write


def read_packed(path: Path) -> None:
    films = open_packed(path.parent)
    for _ in damaged_films(path.parent):
        pass
    for row in range(64541, 64544):
        films.pixels(f"valid/patient{row}/study1/view1_frontal.jpg")


def weights(name: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, _: Path) -> Path:
        torch.manual_seed(0)
        sizes = {"patch_size": 32, "image_size": 64}
        save_model(build_model("timm/test_efficientnet", **sizes, labels=("a", "b")), folder / "weights")
        return folder / "weights" / name

    return write


def state(folder: Path, _: Path) -> Path:
    Checkpoints(folder).save(3, {"settings": {"lr": 1e-3}, "net": {"a": torch.rand(3, 4)}, "list": [1, 2.5, "x", None]})
    return folder / "training_state.pt"


def picture(suffix: str) -> Callable[[Path, Path], Path]:
    def write(folder: Path, _: Path) -> Path:
        path = folder / f"film{suffix}"
        if suffix == ".dcm":
            write_dicom(path, film_pixels(48, 64))
        else:
            write_film(path, 64, 48, seed=0)
        return path

    return write


def table(folder: Path, _: Path) -> Path:
    path = folder / "t.csv"
    path.write_text('Path,x\n"a, b",1\n\nc,-2.5\n')
    return path


FORMATS: dict[str, Format] = {
    "heat map": (heat_map, lambda path: (read_heat_map(path), read_film_pixels(path))),
    "regions": (regions, read_ground_truth),
    "predictions": (predictions, read_predictions),
    "thresholds": (thresholds, read_thresholds),
    "run.json": (record, read_record),
    "label table": (label_table, lambda path: read_films(path, path.parent)),
    "packed films": (packed(".npy"), read_packed),
    "packed manifest": (packed(".json"), read_packed),
    "weights": (weights("model.safetensors"), lambda path: load_model(path.parent)),
    "config": (weights("config.json"), lambda path: load_model(path.parent)),
    "training state": (state, lambda path: Checkpoints(path.parent).load()),
    "csv": (table, read_csv),
    "json": (thresholds, read_json),
    **{f"film {suffix}": (picture(suffix), open_film) for suffix in (".png", ".jpg", ".tif", ".dcm")},
}


def mutant(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, a number blown up, a piece cut out, doubled or overwritten, the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        at, length = rng.randrange(len(changed)), rng.randint(1, 16)
        kind = rng.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice(b'\x00\xff\x7f\n,"{[0-9')
        elif kind == 2:
            changed[at : at + 4] = b"\xff\xff\xff\x7f"
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 1000))
        elif kind == 5:
            changed[at:at] = rng.choice((b"[" * 10_000, b"9" * 5000, b"NaN", b"1e999", b"\xef\xbb\xbf", b"\x1b[2J"))
        else:
            del changed[at:]
    return bytes(changed)


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """`read`, `refused: <line>`, or what went wrong, of a forked process that reads the file."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        _read_and_exit(read, path, sending)
    os.close(sending)
    with os.fdopen(receiving, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    return said


def _read_and_exit(read: Callable[[Path], object], path: Path, sending: int) -> None:
    errors = path.parent.with_name(f"{path.parent.name}.errors")
    with open(errors, "w+") as out:
        sys.stdout = sys.stderr = out
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        faulthandler.disable()
        signal.alarm(SECONDS)
        try:
            code = cli.guarded(lambda _: (read(path), 0)[1])
            out.seek(0)
            lines = [line for line in out.read().splitlines() if not line.startswith("warning: ")]
            said = "read" if code == 0 else f"refused: {NEXT_LINE.join(lines)}"
        except BaseException:
            said = "traceback: " + traceback.format_exc()
        os.write(sending, said.encode(errors="replace")[:60_000])
        os._exit(0)


def soak(name: str, folder: Path, chexpert: Path, mutants: int) -> None:
    """Reads the good file and so many mutants of it; writes [number, outcome] of each (-1: the good one).

    For a process of its own that has not computed anything yet: what torch's threads hold does not survive a fork.
    """
    write, read = FORMATS[name]
    good_folder, work = folder / "good", folder / "work"
    good_folder.mkdir()
    writing = outcome(lambda path: path.write_text(str(write(good_folder, chexpert))), folder / "path")
    said = [[-1, writing]]
    if writing == "read":
        good = Path((folder / "path").read_text())
        said = [[-1, outcome(read, good)]]
        data, rng = good.read_bytes(), random.Random(f"13 {name}")
        for number in range(mutants):
            shutil.copytree(good_folder, work)
            path = work / good.relative_to(good_folder)
            path.write_bytes(mutant(data, rng))
            said.append([number, outcome(read, path)])
            shutil.rmtree(work)
    write_json(folder / "said.json", said)


def is_one_line(said: str) -> bool:
    """Whether a file was refused in one short printable line."""
    return said.startswith("refused: error: ") and said.isprintable() and NEXT_LINE not in said and len(said) < 2000
