"""Tables of films drawn from a seed, with faults in some of them, and the files that they list."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from cxr.labels import CHEXPERT

OWN_LABELS = ("Mass", "Edema", "Rib, broken")
Row = dict[str, str]


@dataclass
class DrawnTable:
    """A table as rows of text, the text of its file, and which films are on disk."""

    name: str
    labels: tuple[str, ...]
    rows: list[Row]
    rng: Random
    facts: dict[str, object] | None = None
    missing: set[str] = field(default_factory=set)
    """Paths without a file."""

    def write(self, root: Path) -> Path:
        """The table, `dataset.json` and an empty file for each film that has a harmless path; returns the table."""
        table = root / self.name
        table.write_text(self.text(), encoding="utf-8", newline="")
        if self.facts is not None:
            (root / "dataset.json").write_text(json.dumps(self.facts))
        for row in self.rows:
            path = row["Path"].strip()
            if path.isprintable() and path[:1] not in ("", "/") and ".." not in path and len(path) < 256:
                film = root / path.removeprefix("CheXpert-v1.0-small/")
                film.parent.mkdir(parents=True, exist_ok=True)
                film.touch()
        for path in self.missing:
            (root / path.removeprefix("CheXpert-v1.0-small/")).unlink(missing_ok=True)
        return table

    def text(self) -> str:
        """CSV with blanks, quotes, line ends within cells, blank lines and columns without a name here and there."""
        rng, out = self.rng, io.StringIO()
        writer = csv.writer(out, lineterminator=rng.choice(("\n", "\r\n")))
        columns = list(self.rows[0])
        unnamed = rng.random() < 0.2
        writer.writerow([*columns, *[""] * unnamed])
        for row in self.rows:
            if rng.random() < 0.01:
                out.write(rng.choice(("\n", " \n", "," * (len(columns) - 1 + unnamed) + "\n")))
            cells = [rng.choice((" ", "", "")) + row[name] if rng.random() < 0.02 else row[name] for name in columns]
            writer.writerow([*cells, *[rng.choice(("", "note\nof two lines"))] * unnamed])
        return rng.choice(("", "", "\ufeff")) + out.getvalue()


def drawn_table(seed: int, faults: int) -> DrawnTable:
    """A valid table of some 30 films with a number of faults, which may be of one kind or fall on one row."""
    rng = Random(seed)
    table = (_chexpert if rng.random() < 0.5 else _manifest)(rng)
    for _ in range(faults):
        rng.choice(FAULTS)(table, rng)
    return table


def _chexpert(rng: Random) -> DrawnTable:
    """CheXpert's own columns in any order, patients and studies in its paths."""
    release = rng.choice(("", "CheXpert-v1.0-small/"))
    rows = []
    for patient in range(10):
        for study in range(1, rng.randint(1, 3) + 1):
            for view, kind in enumerate(rng.choice((("frontal",), ("frontal", "lateral"), ("frontal", "frontal")))):
                path = f"{release}train/patient{patient:05d}/study{study}/view{view + 1}_{kind}.jpg"
                facts = {"Sex": rng.choice(("Male", "Female", "Unknown")), "Age": str(rng.randint(0, 90))}
                facts |= {"Frontal/Lateral": rng.choice((kind.capitalize(), "")), "AP/PA": rng.choice(("AP", "", "LL"))}
                rows.append({"Path": path} | facts | _label_cells(CHEXPERT.names, rng))
    order = rng.sample(list(rows[0]), len(rows[0]))
    return DrawnTable("train.csv", CHEXPERT.names, [{name: row[name] for name in order} for row in rows], rng)


def _manifest(rng: Random) -> DrawnTable:
    """A manifest of some optional columns, with labels of its own, the splits given or drawn."""
    given = [name for name in ("Film", "Study", "View", "Sex", "Age") if rng.random() < 0.5]
    with_splits = rng.random() < 0.5
    rows = []
    for film in range(30):
        patient = f"p{film // 3}"
        values = {"Film": rng.choice((f"film{film}", f"film {film}é")), "Study": f"s{film // 2}", "Age": "60"}
        values |= {"View": rng.choice(("PA", "L", "")), "Sex": rng.choice(("M", "Female", ""))}
        path = f"{rng.choice(('', 'deep/er/'))}{film}{rng.choice(('.png', '.dcm', '.1.2'))}"
        row = {"Path": path, "Patient": patient} | {name: values[name] for name in given}
        if with_splits:
            row["Split"] = ("train", "VALID", "val", "test", "")[film // 3 % 5]
        rows.append(row | _label_cells(OWN_LABELS, rng))
    facts: dict[str, object] = {"labels": list(OWN_LABELS), "split": {"seed": rng.randint(0, 9)}}
    if rng.random() < 0.3:
        facts["blank"] = "negative"
    return DrawnTable("films.csv", OWN_LABELS, rows, rng, facts)


def _label_cells(names: tuple[str, ...], rng: Random) -> Row:
    return {name: rng.choice(("", "1.0", "0", "-1", "-1.0", "1")) for name in names}


# ------------------------------------------------------------------------------------------------------------ faults


def _set(column: str, *texts: str) -> Callable[[DrawnTable, Random], None]:
    """A fault that puts one of the texts into a cell."""

    def fault(table: DrawnTable, rng: Random) -> None:
        row = rng.choice(table.rows)
        if column in row:
            row[column] = rng.choice(texts)

    return fault


def _bad_label(table: DrawnTable, rng: Random) -> None:
    rng.choice(table.rows)[rng.choice(table.labels)] = rng.choice(("2", "yes", "nan", "1e0", "0.5", "=1"))


def _copied(column: str) -> Callable[[DrawnTable, Random], None]:
    """A fault that gives a row the value of another one."""

    def fault(table: DrawnTable, rng: Random) -> None:
        first, second = rng.sample(table.rows, 2)
        if column in first:
            second[column] = first[column]

    return fault


def _other_ending(table: DrawnTable, rng: Random) -> None:
    """Two films whose copies would have one name."""
    first, second = rng.sample(table.rows, 2)
    second["Path"] = first["Path"].rpartition(".")[0] + rng.choice((".tif", ".bmp"))


def _absent(table: DrawnTable, rng: Random) -> None:
    table.missing.add(rng.choice(table.rows)["Path"])


FAULTS = (
    _bad_label,
    _copied("Path"),
    _copied("Film"),
    _copied("Split"),
    _other_ending,
    _absent,
    _set("Film", "", "film1", "a/b"),
    _set("Patient", "", "p1"),
    _set("Split", "", "training", "test"),
    _set("Path", "", "/etc/passwd", "a/../../b.png", "a\\b.png", "C:/b.png", "a\nb.png", "./a//b.png", "x" * 256),
)
