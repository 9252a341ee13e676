"""How the labels of a label set are ordered, marked and named in tables and figures."""

from __future__ import annotations

from cxr.labels import CHEXPERT, LabelSet
from reporting.paper import read_paper


def ordered(labels: LabelSet) -> tuple[str, ...]:
    """As in the paper's Figure 1: the labels of each group, then the others, each by name."""
    return tuple(label for members in sections(labels).values() for label in members)


def sections(labels: LabelSet) -> dict[str, tuple[str, ...]]:
    """Heading -> its labels by name, every label once: a section per group, and one for the others."""
    left = set(labels.names)
    found: dict[str, tuple[str, ...]] = {}
    for group, members in labels.groups.items():
        found[f"Labels of {group}"] = tuple(sorted(left & set(members)))
        left -= set(members)
    found[f"{'Other labels' if found else 'Labels'}{of_release(labels)}"] = tuple(sorted(left))
    return {heading: members for heading, members in found.items() if members}


def of_release(labels: LabelSet) -> str:
    """` of CheXpert` for CheXpert's own labels, else nothing."""
    return " of CheXpert" if set(labels.names) == set(CHEXPERT.names) else ""


def group_marks(labels: LabelSet) -> dict[str, str]:
    """Group -> the stars that stand for it; a group of all labels needs none."""
    groups = [group for group, members in labels.groups.items() if len(members) < len(labels)]
    return {group: "*" * (place + 1) for place, group in enumerate(groups)}


def means(labels: LabelSet) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Row of a mean -> its mark in Table 1 and the labels it is taken over: the groups, then all labels."""
    marks = group_marks(labels)
    names = {members: name for name, members in reversed(labels.means.items())}
    found = {names[tuple(labels.groups[group])]: (mark, tuple(labels.groups[group])) for group, mark in marks.items()}
    return found | {names[labels.names]: ("All", labels.names)}


def means_caption(labels: LabelSet) -> str:
    """`Means over the 10 labels of CheXlocalize (*) and over all 14 of CheXpert (All)`."""
    parts = [
        f"over the {len(labels.groups[group])} labels of {group} ({mark})"
        for group, mark in group_marks(labels).items()
    ]
    everything = f"over all {len(labels)}{of_release(labels) or ' labels'} (All)"
    return f"Means {' and '.join([*parts, everything])}"


def marked(label: str, labels: LabelSet) -> str:
    """`Edema (*)`: the label with the marks of its groups."""
    marks = [mark for group, mark in group_marks(labels).items() if label in labels.groups[group]]
    return f"{label} ({', '.join(marks)})" if marks else label


def marks_note(labels: LabelSet) -> tuple[str, ...]:
    """Meaning of the marks of `marked`, a sentence per group."""
    return tuple(
        f"({mark}) one of the {len(labels.groups[group])} labels of {group}{_renaming(labels, group)}."
        for group, mark in group_marks(labels).items()
    )


def _renaming(labels: LabelSet, group: str) -> str:
    names = [f"{label} is called {labels.tasks[label]}" for label in renamed(labels) if label in labels.groups[group]]
    return f", where {', '.join(names)}" if names else ""


def renamed(labels: LabelSet) -> tuple[str, ...]:
    """The labels that have another name in the localization ground truth."""
    return tuple(label for label, task in labels.tasks.items() if task != label)


def renamed_note(labels: LabelSet) -> str:
    """`* called Airspace Opacity in CheXlocalize`, for figures; empty where every label keeps its name."""
    names = renamed(labels)
    group = next((group for group, members in labels.groups.items() if set(names) <= set(members)), "the masks")
    return f"* called {', '.join(labels.tasks[name] for name in names)} in {group}" if names else ""


def starred(label: str, labels: LabelSet, longest: int = 30) -> str:
    """The label at most `longest` characters long, with a star where `renamed_note` is about it."""
    return shortened(label, longest) + ("*" if label in renamed(labels) else "")


def shortened(label: str, longest: int) -> str:
    """The label, the paper's abbreviation of a longer one, or the first characters of one that it does not know."""
    if len(label) > longest:
        label = read_paper().short(label)
    return label if len(label) <= longest else f"{label[: longest - 1].rstrip()}…"


def task_heading(task: str, labels: LabelSet) -> str:
    """A task as the paper's tables have it: under the label's name, abbreviated."""
    return read_paper().short(labels.label_of(task))
