"""Tables with faults here and there: `read_films` gives the films, or the message, of a slow and obvious reading."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest

from cxr.files import InputError, place, quoted
from cxr.manifests.films import Films, read_films
from tests.cxr.manifests.drawn_tables import DrawnTable, drawn_table

ENDINGS = (".png", ".jpg", ".dcm", ".tif", ".bmp")
TABLES = 200
SPLITS = (None, "train", "train", "val", "test")
UNCERTAIN = {"zeros": 0.0, "ones": 1.0, "ignore": math.nan, "keep": -1.0}


def obvious_reading(table: Path, root: Path, drawn: DrawnTable, split: str | None, uncertain: str) -> list[dict]:
    """The films of a split, one dict each, row by row and check by check."""
    films = [identity(row, line, table) for row, line in rows_of(table)]
    once(films, "Path", "the film", "Path", table)
    for film in films:
        if "/" in film["Film"]:
            reason = "files are named after it: no / and \\, no . at its start, nothing unprintable"
            raise InputError(
                f"{place(table, film['line'], 'Film')}: {quoted(film['Film'])} cannot be a film id: {reason}"
            )
    once(films, "Film", "the film id", "Film" if "Film" in drawn.rows[0] else "Path", table)
    once(films, "copy", "the name of its copy,", "Path", table)
    kept = films if split is None or table.name == "train.csv" else of_split(films, table, split, drawn)
    if not kept:
        raise InputError(f"{table}: no film of split '{split}'; put films into it in the column Split")
    negative = table.name == "train.csv" or (drawn.facts or {}).get("blank") == "negative"
    for label in drawn.labels:
        for film in films:
            film[label] = label_value(film, label, negative, uncertain, table)
    for film in kept:
        film["file"] = root / inside(film["Path"])
        if not film["file"].is_file() and not (root / film["copy"]).is_file():
            reason = f"no film at {film['file']}; is {root} complete?"
            raise InputError(f"{place(table, film['line'], 'Path')}: {reason}")
    return kept


def rows_of(table: Path) -> list[tuple[dict[str, str], int]]:
    reader = csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig").replace("\r\n", "\n"), newline=""))
    header, found, start = next(reader), [], reader.line_num + 1
    for cells in reader:
        cells = [restored(cell.strip()) for cell in cells]
        if any(cells):
            found.append((dict(zip(header, cells, strict=True)), start))
        start = reader.line_num + 1
    return found


def restored(cell: str) -> str:
    return cell[1:] if re.match("'+[=+@\t\r\n-]", cell) else cell


def identity(row: dict[str, str], line: int, table: Path) -> dict:
    path, where = row["Path"], place(table, line, "Path")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    reason = (
        "blank" if not path
        else "an absolute path" if path.startswith("/") or path[1:2] == ":"
        else "written with backslashes" if "\\" in path
        else "a path out of the data folder" if ".." in parts
        else "a path with control characters" if not path.isprintable()
        else "longer than a file's name can be" if max(map(len, parts)) > 255
        else ""
    )  # fmt: skip
    if reason:
        example = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        raise InputError(
            f"{where}: {quoted(path)} is {reason}; expected a path below the data folder, such as {example}"
        )
    path = "/".join(parts)
    stem = inside(path)
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    name = stem.split("/")
    chexpert = len(name) >= 3 and re.fullmatch(r"patient\d+/study\d+/view\d+_[a-z]+", "/".join(name[-3:]))
    views = {"frontal": "frontal", "lateral": "lateral"}
    derived_view = next((view for view in views if view in path.split("/")[-1]), "")
    view = row.get("View", row.get("Frontal/Lateral", "").lower() or derived_view)
    if view != "lateral" and row.get("AP/PA") in ("AP", "PA"):
        view = row["AP/PA"]
    return row | {
        "line": line,
        "Path": path,
        "Film": row.get("Film") or "_".join(name[-3:] if chexpert else name),
        "Patient": row.get("Patient", name[-3] if chexpert else ""),
        "Study": row.get("Study", "/".join(name[-3:-1]) if chexpert else ""),
        "View": view,
        "Sex": {"Male": "M", "Female": "F", "Unknown": ""}.get(row.get("Sex", ""), row.get("Sex", "")),
        "Age": row.get("Age", ""),
        "Split": row.get("Split", ""),
        "copy": f"{stem}.jpg",
    }


def inside(path: str) -> str:
    return path.removeprefix("CheXpert-v1.0-small/")


def once(films: list[dict], key: str, what: str, column: str, table: Path) -> None:
    for number, film in enumerate(films):
        for other in films[:number]:
            if film[key] == other[key] != "":
                reason = (
                    f"{what} {quoted(film[key])} is also that of line {other['line']}; remove or rename one of the two"
                )
                raise InputError(f"{place(table, film['line'], column)}: {reason}")


def of_split(films: list[dict], table: Path, split: str, drawn: DrawnTable) -> list[dict]:
    for film in films:
        word = film["Split"].lower()
        film["of"] = "val" if word == "valid" else word
        if film["of"] not in ("train", "val", "test", ""):
            reason = f"{quoted(film['Split'])}; expected train, val or test, or blank"
            raise InputError(f"{place(table, film['line'], 'Split')}: {reason}")
    if not any(film["of"] for film in films):
        for film in films:
            if not film["Patient"]:
                reason = "no patient is known, so no splits can be drawn; fill in a column Patient or Split"
                raise InputError(f"{place(table, film['line'], 'Patient')}: {reason}")
            digest = hashlib.sha256(f"{drawn.facts['split']['seed']}/{film['Patient']}".encode()).hexdigest()
            share = int(digest[:16], 16) / 16**16
            film["of"] = "test" if share < 0.2 else "val" if share < 0.2 + 0.1 else "train"
    for number, film in enumerate(films):
        for other in films[:number]:
            if film["Patient"] == other["Patient"] != "" and other["of"] and film["of"] and film["of"] != other["of"]:
                first = next(f for f in films if f["Patient"] == film["Patient"] and f["of"])
                splits = f"is in {film['of']}, and in {first['of']} on line {first['line']}"
                reason = f"patient {quoted(film['Patient'])} {splits}; a patient belongs to one split"
                raise InputError(f"{place(table, film['line'], 'Split')}: {reason}")
    return [film for film in films if film["of"] == split]


def label_value(film: dict, label: str, blank_is_negative: bool, uncertain: str, table: Path) -> float:
    text = film[label]
    if not text:
        return 0.0 if blank_is_negative else math.nan
    if text not in ("1", "1.0", "0", "-1", "-1.0"):
        reason = f"{quoted(text)} is not a label; expected 1, 0, -1 (uncertain) or nothing"
        raise InputError(f"{place(table, film['line'], label)}: {reason}")
    return UNCERTAIN[uncertain] if float(text) == -1 else float(text)


def as_dicts(films: Films) -> list[dict]:
    columns = {"Path": films.paths, "Film": films.ids, "Patient": films.patients, "Study": films.studies}
    columns |= {"View": films.views, "Sex": films.sexes, "Age": films.ages, "line": films.lines, "file": films.files}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


MESSAGES = (
    *(
        "is not a label",
        "the film id",
        "cannot be a film id",
        "the name of its copy",
        "the film '",
        "out of the data folder",
        "is blank",
    ),
    *("an absolute path", "backslashes", "control characters", "longer than", "no film at", "expected train, val"),
    *("belongs to one split", "no patient is known", "no film of split"),
)


def test_films_and_messages_are_those_of_an_obvious_reading(tmp_path):
    refused: list[str] = []
    for seed in range(TABLES):
        root = tmp_path / str(seed)
        root.mkdir()
        drawn = drawn_table(seed, faults=seed % 4)
        table, split, uncertain = drawn.write(root), drawn.rng.choice(SPLITS), drawn.rng.choice(list(UNCERTAIN))
        try:
            expected = obvious_reading(table, root, drawn, split, uncertain)
        except InputError as error:
            refused.append(str(error))
            with pytest.raises(InputError) as found:
                read_films(table, root, split=split, uncertain=uncertain)
            assert str(found.value) == str(error), seed
            continue
        films = read_films(table, root, split=split, uncertain=uncertain)
        assert films.label_set.names == drawn.labels
        assert as_dicts(films) == [{key: film[key] for key in as_dicts(films)[0]} for film in expected]
        labels = [[film[label] for label in drawn.labels] for film in expected]
        assert np.array_equal(films.labels, np.array(labels, dtype=np.float32), equal_nan=True)
    assert TABLES / 3 < len(refused) < 3 * TABLES / 4
    assert [text for text in MESSAGES if not any(text in message for message in refused)] == []
