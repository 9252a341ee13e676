"""Label sets: ordered label names with the groups that means are taken over and the tasks that localization scores.

A label set is data. It travels with a data set (`dataset.json`), weights (`config.json`), predictions (their columns
and `run.json`) and every table. Two label sets meet by name, in `positions`, and never by place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cxr.files import InputError, composed, quoted

UncertainPolicy = Literal["zeros", "ones", "ignore"]
"""The value that -1, uncertain, is taken for; `ignore`: not labelled."""

UncertainOrKept = UncertainPolicy | Literal["keep"]
"""Or -1 itself, for values that are still to be mapped to other labels."""


@dataclass(frozen=True)
class LabelSet:
    """Ordered label names.

    names: each once, printable, without `/` and `\\`. groups: name of a group -> its labels; tables show the mean of
    each group beside the mean of all labels. tasks: label -> its name in the localization ground truth, for the labels
    that are outlined there; a task stands for one label. shared: whether these are the labels that a network and a
    data set of other labels share, which the mean's name then says.
    Raises ValueError, in one line, for names, groups or tasks that break these rules.
    """

    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False

    def __post_init__(self) -> None:
        groups = {composed(group): tuple(map(_composed, members)) for group, members in self.groups.items()}
        tasks = {composed(label): _composed(task) for label, task in self.tasks.items()}
        for part, value in (("names", tuple(map(_composed, self.names))), ("groups", groups), ("tasks", tasks)):
            object.__setattr__(self, part, value)
        if not self.names:
            raise ValueError("labels: expected at least one name")
        for name in self.names:
            if not is_label_name(name):
                raise ValueError(f"labels: {quoted(name)} is not a name; expected printable text without / and \\")
        _each_once("labels", self.names)
        for group, members in self.groups.items():
            _each_once(f"group {quoted(group)}", members)
        for label in (*self.tasks, *(label for members in self.groups.values() for label in members)):
            if label not in self.names:
                raise ValueError(f"groups or tasks name {quoted(label)}, which is not one of the labels")
        for task in self.tasks.values():
            if not is_label_name(task):
                raise ValueError(f"tasks: {quoted(task)} is not a name; expected printable text without / and \\")
        _each_once("tasks", tuple(self.tasks.values()))

    @classmethod
    def of(cls, names: Iterable[str]) -> LabelSet:
        """The label set of bare names: CheXpert's have CheXpert's groups and tasks, others are tasks of their own."""
        names = tuple(names)
        tasks = {name: CHEXPERT.tasks.get(name, name) for name in names if name in CHEXPERT.tasks or not _known(name)}
        groups = {group: tuple(n for n in members if n in names) for group, members in CHEXPERT.groups.items()}
        return cls(names, {group: members for group, members in groups.items() if members}, tasks)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def means(self) -> dict[str, tuple[str, ...]]:
        """Row of a table -> the labels whose mean it is: `Mean (14)`, `Mean (8 shared)`, `Mean (CheXlocalize 10)`."""
        of_groups = {f"Mean ({group} {len(members)})": members for group, members in self.groups.items()}
        return {f"Mean ({len(self.names)}{' shared' * self.shared})": self.names} | of_groups

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks in alphabetical order, as CheXlocalize's result files have them."""
        return tuple(sorted(self.tasks.values()))

    def index(self, label: str) -> int:
        """The label's place. Raises ValueError for a label that is not in the set."""
        return self.names.index(label)

    def task_of(self, label: str) -> str:
        """The label's name in the localization ground truth; its own where that has none."""
        return self.tasks.get(label, label)

    def label_of(self, task: str) -> str:
        """The label that a task stands for; the task's own name where the set does not know it."""
        return next((label for label, name in self.tasks.items() if name == task), task)

    def restrict(self, names: Iterable[str]) -> LabelSet:
        """The set of some of its labels, in the order of `names`; groups and tasks shrink with it."""
        names = tuple(names)
        groups = {group: tuple(n for n in members if n in names) for group, members in self.groups.items()}
        return LabelSet(
            names,
            {group: members for group, members in groups.items() if members},
            {label: task for label, task in self.tasks.items() if label in names},
            self.shared,
        )

    def to_json(self) -> dict[str, Any]:
        facts = {
            "names": list(self.names),
            "groups": {g: list(m) for g, m in self.groups.items()},
            "tasks": {**self.tasks},
        }
        return facts | ({"shared": True} if self.shared else {})

    @classmethod
    def from_json(cls, content: Any, source: str) -> LabelSet:
        """Reads what `to_json` gives, or a bare list of names. Raises InputError that starts with `source`."""
        content = {"names": content} if isinstance(content, list) else content
        if not isinstance(content, dict) or not _are_texts(content.get("names")):
            raise InputError(f'{source}: expected {{"names": [label, ...], "groups": {{}}, "tasks": {{}}}}')
        groups, tasks = content.get("groups"), content.get("tasks")
        try:
            if groups is None and tasks is None:
                return cls.of(content["names"])
            if not _is_object_of(groups or {}, _are_texts) or not _is_object_of(tasks or {}, _is_text):
                raise ValueError("groups: expected group -> [label, ...]; tasks: expected label -> task")
            members = {group: tuple(labels) for group, labels in (groups or {}).items()}
            return cls(tuple(content["names"]), members, dict(tasks or {}), content.get("shared") is True)
        except ValueError as error:
            raise InputError(f"{source}: {error}") from None


def positions(wanted: Sequence[str], available: Sequence[str], source: str) -> list[int]:
    """The place of each wanted label in `available`: the one way in which columns, outputs and labels meet.

    source: what has the available labels, for the message. Raises InputError that names the labels that are missing.
    """
    place = {label: index for index, label in enumerate(available)}
    missing = [label for label in wanted if label not in place]
    if missing:
        has = ", ".join(map(quoted, available[:20]))
        raise InputError(f"{source}: no {', '.join(map(quoted, missing))}; its labels are {has}")
    return [place[label] for label in wanted]


def is_label_name(name: object) -> bool:
    """Whether a label can stand in a column's header and be a part of a file's name."""
    return isinstance(name, str) and name == name.strip() != "" and name.isprintable() and not set(name) & set("/\\")


def _composed(name: Any) -> Any:
    return composed(name) if isinstance(name, str) else name


def _each_once(what: str, names: Sequence[str]) -> None:
    """Names that differ in upper and lower case alone are one: files are named after them."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(name.casefold())
        if other is not None:
            reason = "is there twice" if other == name else f"is {quoted(other)} but for upper and lower case"
            raise ValueError(f"{what}: {quoted(name)} {reason}")
        seen[name.casefold()] = name


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_object_of(value: object, of: Any) -> bool:
    return isinstance(value, dict) and all(map(of, value.values()))


def _known(name: str) -> bool:
    return name in CHEXPERT.names


_TASKS = {
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Airspace Opacity",
    "Lung Lesion": "Lung Lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Pleural Effusion",
    "Support Devices": "Support Devices",
}

CHEXPERT = LabelSet(
    (
        "No Finding",
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    ),
    {"CheXlocalize": tuple(_TASKS)},
    _TASKS,
)
"""The 14 labels in the order of CheXpert's `train.csv`, which is also that of the published heads' outputs; the 10 that
CheXlocalize outlines are a group, and `Lung Opacity` is called `Airspace Opacity` there. CheXpert's own files,
VisualCheXbert's and CheXlocalize's order their columns differently."""
