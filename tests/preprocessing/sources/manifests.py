"""A source's manifest, made from a release on disk by the real command, and read by csv and json alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cli
from preprocessing import makeManifest


def make(source: str, root: Path, *more: str) -> Path:
    """Runs makeManifest.py, which must succeed; returns the manifest's folder."""
    output = root.parent / f"{root.name}-manifest"
    code = cli.guarded(makeManifest.main, ["--source", source, str(root), "--output", str(output), *more])
    assert code == 0
    return output


def rows(manifest: Path) -> dict[str, dict[str, str]]:
    """Film -> its row of films.csv."""
    with open(manifest / "films.csv", newline="") as handle:
        return {row["Film"]: row for row in csv.DictReader(handle)}


def content(manifest: Path, name: str = "dataset.json") -> Any:
    return json.loads((manifest / name).read_text())


def labels(row: dict[str, str], names: list[str]) -> dict[str, str]:
    """The labels of a row that are not blank."""
    return {name: row[name] for name in names if row[name] != ""}
