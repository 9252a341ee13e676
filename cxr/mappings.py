"""Label mappings: what the labels of other data sets are in CheXpert's terms, from `mappings.json`.

For every data set: CheXpert's label -> the set's labels that are its cases (`any_of`), whether the match is `exact` or
`approximate`, and why. A label that no rule makes is not labelled in that set, which is never negative; a rule reads
its own labels only, so that a film without finding does not turn other labels into zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cxr.files import InputError, quoted, read_json, sha256

FILE = Path(__file__).with_name("mappings.json")
_WITH_APPROXIMATE = "+approximate"


@dataclass(frozen=True)
class Rule:
    """The making of one label of the network from the labels of a data set."""

    label: str
    any_of: tuple[str, ...]
    exact: bool
    reason: str


@dataclass(frozen=True)
class Mapping:
    """The rules of a data set, in CheXpert's order of labels.

    open_list: whether the set lists findings by any names, so that a label without a column is one that no film has;
    else it was not looked for. approximate: whether rules that match only approximately count.
    """

    name: str
    rules: tuple[Rule, ...]
    open_list: bool = False
    approximate: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the rules make."""
        return tuple(rule.label for rule in self.rules)

    def exact(self) -> Mapping:
        """The rules that match exactly: those that a test of a network is to rest on."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.exact), approximate=False)

    def present(self, names: Sequence[str]) -> Mapping:
        """The rules of which `names`, the labels of a release, has at least one.

        A rule that lacks some of its labels matches only approximately, unless the set's list is an open one. Raises
        InputError where no rule is left.
        """
        known = set(names)
        rules = (
            replace(rule, exact=rule.exact and (self.open_list or set(rule.any_of) <= known))
            for rule in self.rules
            if set(rule.any_of) & known
        )
        kept = tuple(rule for rule in rules if rule.exact or self.approximate)
        if not kept:
            has = ", ".join(map(quoted, names[:8]))
            raise InputError(f"mapping {quoted(self.name)}: makes no label of this data set, whose labels are {has}")
        return replace(self, rules=kept)

    def to_labels(self, labels: Sequence[str]) -> Mapping:
        """The rules that make one of `labels`, those of a network. Raises InputError where none does."""
        kept = tuple(rule for rule in self.rules if rule.label in set(labels))
        if not kept:
            makes, has = (", ".join(map(quoted, names[:14])) for names in (self.labels, labels))
            raise InputError(f"mapping {quoted(self.name)}: makes {makes}; the network has none of them, but {has}")
        return replace(self, rules=kept)

    def parts(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Label -> those of `names` that it is made of."""
        known = set(names)
        return {rule.label: tuple(name for name in rule.any_of if name in known) for rule in self.rules}

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """The mapping as applied to the labels `names`, for records."""
        return {"name": self.name, "labels": {label: list(parts) for label, parts in self.parts(names).items()}}

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


def known_mappings() -> tuple[str, ...]:
    """The names of the data sets that have a mapping."""
    return tuple(read_json(FILE))


def read_mapping(name: str) -> Mapping:
    """The mapping of a data set, by the name of its source. Raises InputError that lists the names known."""
    content = read_json(FILE)
    if name not in content:
        raise InputError(f"{quoted(name)}: no such label mapping; known are {', '.join(content)}")
    rules = (
        Rule(label, tuple(rule["any_of"]), rule["match"] == "exact", rule["reason"])
        for label, rule in content[name]["rules"].items()
    )
    return Mapping(name, tuple(rules), content[name]["label that no film has"] == "negative")


def chosen_mapping(option: str) -> Mapping:
    """`nih`: the labels that match exactly; `nih+approximate`: the others too. Raises InputError as `read_mapping`."""
    mapping = read_mapping(option.removesuffix(_WITH_APPROXIMATE))
    return mapping if option.endswith(_WITH_APPROXIMATE) else mapping.exact()


def mapping_facts(option: str) -> dict[str, Any]:
    """The option and the sha256 of the rules' file, for records."""
    return {"option": option, "file": FILE.name, "sha256": sha256(FILE)}
