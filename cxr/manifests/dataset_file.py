"""dataset.json: the facts of a data set that its table of films does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr.files import InputError, place, quoted, read_json
from cxr.labels import LabelSet
from cxr.manifests.splits import DRAWN_SHARES

DATASET, REGIONS = "dataset.json", "regions.json"


@dataclass(frozen=True)
class DataSet:
    """The facts of a data set that its table does not say.

    labels: None where the table's own columns decide. blank_is_negative: whether a blank label is negative, else the
    film is not labelled; None where nothing says so, and CheXpert's columns decide. grey: the rule for its pixels, as
    `cxr.images` reads it. shares, seed: of splits that are drawn.
    """

    name: str = ""
    labels: LabelSet | None = None
    blank_is_negative: bool | None = None
    grey: Mapping[str, Any] | None = None
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DRAWN_SHARES))
    seed: int = 0


def read_dataset(table: Path) -> DataSet:
    """Reads `dataset.json` beside a table; without one, nothing is known. Raises InputError for another form."""
    path = Path(table).with_name(DATASET)
    if not path.is_file():
        return DataSet()
    content = read_json(path)
    blank, drawn = content.get("blank"), content.get("split", {})
    if blank not in (None, "negative", "not labelled"):
        raise InputError(f"{place(path, column='blank')}: {quoted(blank)}; expected 'negative' or 'not labelled'")
    labels = None
    if "labels" in content:
        if not isinstance(content["labels"], list):
            reason = f"{quoted(content['labels'])}; expected a list of names"
            raise InputError(f"{place(path, column='labels')}: {reason}")
        facts = {"names": content["labels"], "groups": content.get("groups"), "tasks": content.get("tasks")}
        labels = LabelSet.from_json(facts, place(path, column="labels"))
    if not isinstance(drawn, dict) or not _are_shares(drawn):
        raise InputError(f"{place(path, column='split')}: expected seed (whole number), val and test (shares below 1)")
    shares = {name: float(drawn.get(name, DRAWN_SHARES[name])) for name in DRAWN_SHARES}
    name = content.get("name", "")
    return DataSet(
        name if isinstance(name, str) else "",
        labels,
        None if blank is None else blank == "negative",
        content.get("grey"),
        shares,
        drawn.get("seed", 0),
    )


def _are_shares(drawn: Mapping[str, Any]) -> bool:
    shares = [drawn.get(name, DRAWN_SHARES[name]) for name in DRAWN_SHARES]
    numbers = all(type(share) in (int, float) and 0 <= share < 1 for share in shares)
    return numbers and sum(shares) < 1 and type(drawn.get("seed", 0)) is int
