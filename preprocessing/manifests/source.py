"""Description of a data set: its tables, its two functions, and the facts that no table holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from cxr.labels import LabelSet
from cxr.pixels.grey import PERCENTILES, Grey

Tables = Mapping[str, Any]
"""Key of a `TableFile` -> its DataFrame of strings (blank: `""`), or the content of a json file. A key whose optional
file is absent is missing. `sizes`, where a source asks for it: film id -> (height, width) in pixels."""

Regions = dict[str, dict[str, dict[str, Any]]]
"""Film id -> task -> `{"size": [h, w], "kind": "box", "boxes": [[x, y, width, height], ...]}` or COCO's run-length code
`{"size": [h, w], "counts": string}`."""


OUTLINES_RECORD = "outlines_record"
"""Key of the json file beside outlines that says who made them, where a release has one, as the drawn one does."""

PERCENTILE = Grey("percentile", *PERCENTILES)
"""The grey rule of films whose stored values have no fixed range."""


@dataclass(frozen=True)
class TableFile:
    """One table of a release: the names it may have below the root, and the columns without which it is another's.

    Several `TableFile`s of one key are the forms that the table has in different releases; the first present is read.
    """

    key: str
    names: tuple[str, ...]
    columns: tuple[str, ...] = ()
    required: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    """A column's name in another release -> its name here."""


@dataclass(frozen=True)
class Source:
    """A data set: its tables, and the two functions that turn them into films and regions.

    films: tables -> one row per film as `columns.film_table` makes it. regions: tables -> outlines, by film and task.
    label_set: None where the labels are the columns of `films` and the tasks those that are outlined.
    blank: meaning of a blank label. grey: the rule by which stored values become grey values.
    """

    title: str
    tables: tuple[TableFile, ...]
    films: Callable[..., pd.DataFrame]
    regions: Callable[..., Regions] | None = None
    label_set: LabelSet | None = None
    blank: Literal["negative", "not labelled"] = "not labelled"
    grey: Grey = Grey.STORED
    licence: str = ""
    sizes: bool = False
    """Whether boxes are in pixels of films whose size may stand in no table, only in the films themselves."""
    outlines: Literal["", "radiologists", "reviewed"] = ""
    """Who made the regions: radiologists, or a model whose outlines radiologists reviewed; empty without regions."""
    outlined_by: str = ""
    """The same in words, with the publication that says so."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Keyword arguments of `films` and `regions` that a user may give -> their defaults."""
