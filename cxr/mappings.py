"""Label mappings: what the labels of other data sets are in CheXpert's terms, from `mappings.json`.

For every data set: CheXpert's label -> the set's labels that are its cases (`any_of`), whether the match is `exact` or
`approximate`, and why. A label that no rule makes is not labelled in that set, which is never negative; a rule reads
its own labels only, so that a film without finding does not turn other labels into zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.files import InputError, quoted, read_json

_FILE = Path(__file__).with_name("mappings.json")


@dataclass(frozen=True)
class Rule:
    """How one label of the network is made of the labels of a data set."""

    label: str
    any_of: tuple[str, ...]
    exact: bool
    reason: str


@dataclass(frozen=True)
class Mapping:
    """The rules of a data set, in CheXpert's order of labels."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the rules make."""
        return tuple(rule.label for rule in self.rules)

    def exact(self) -> Mapping:
        """The rules that match exactly: those that a test of a network is to rest on."""
        return Mapping(self.name, tuple(rule for rule in self.rules if rule.exact))

    def present(self, names: Sequence[str]) -> Mapping:
        """The rules of which `names`, the labels of a release, has at least one. Raises InputError where none has."""
        kept = tuple(rule for rule in self.rules if set(rule.any_of) & set(names))
        if not kept:
            has = ", ".join(map(quoted, names[:8]))
            raise InputError(f"mapping {quoted(self.name)}: makes no label of this data set, whose labels are {has}")
        return Mapping(self.name, kept)

    def apply(self, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(N, C) values of the labels `names` -> (N, len(self.labels)).

        A label is 1 where any of its parts is 1; else -1 where any is -1 (uncertain); else NaN where any is NaN (not
        labelled); else 0. Parts that are not among `names` do not count. Raises ValueError for a rule without parts.
        """
        position = {name: column for column, name in enumerate(names)}
        made = np.empty((len(values), len(self.rules)), dtype=np.float32)
        for column, rule in enumerate(self.rules):
            parts = values[:, [position[name] for name in rule.any_of if name in position]]  # (N, parts)
            if not parts.shape[1]:
                raise ValueError(f"{rule.label}: none of its parts is a label; restrict the mapping with `present`")
            unknown = np.where(np.isnan(parts).any(axis=1), np.nan, 0.0)
            negative = np.where((parts == -1).any(axis=1), -1.0, unknown)
            made[:, column] = np.where((parts == 1).any(axis=1), 1.0, negative)
        return made


def read_mapping(name: str) -> Mapping:
    """The mapping of a data set, by the name of its source. Raises InputError that lists the names known."""
    content = read_json(_FILE)
    if name not in content:
        raise InputError(f"{quoted(name)}: no such label mapping; known are {', '.join(content)}")
    rules = (
        Rule(label, tuple(rule["any_of"]), rule["match"] == "exact", rule["reason"])
        for label, rule in content[name].items()
    )
    return Mapping(name, tuple(rules))
