"""Which tasks and heat maps are scored: those that the maps and the ground truth share, whatever the label set."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.heat_maps import HeatMapSource, heat_map_name
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth


def scored_entries(source: HeatMapSource, ground_truth: GroundTruth) -> list[tuple[str, str]]:
    """(image id, task) of the maps whose task the ground truth has.

    Raises InputError when there are none, when none of their films has ground truth, and for a misnamed task.
    """
    tasks = set(ground_truth.tasks)
    others = {task: image_id for image_id, task in reversed(source.entries) if task not in tasks}
    _check_names(others, tasks, place(ground_truth.source))
    entries = [(image_id, task) for image_id, task in source.entries if task in tasks]
    if not entries:
        has, maps = (", ".join(map(quoted, names[:20])) for names in (ground_truth.tasks, sorted(others)))
        raise InputError(f"{place(ground_truth.source)}: its tasks are {has}; the heat maps are of {maps}")
    if not any(image_id in ground_truth for image_id, _ in entries):
        raise InputError(
            f"{place(ground_truth.source)}: none of its films has a heat map; take the ground truth of that split"
        )
    return entries


def _check_names(others: Mapping[str, str], tasks: set[str], source: str) -> None:
    """Raises InputError for a map under a label's name where its task has another, and, beside CheXlocalize's ground
    truth, for a task that is none of CheXpert's labels. others: task -> a film with a map of it."""
    for task, image_id in sorted(others.items()):
        name = place(heat_map_name(image_id, task))
        if CHEXPERT.task_of(task) in tasks:
            raise InputError(f"{name}: unknown task {quoted(task)}; {source} calls it {CHEXPERT.task_of(task)}")
        if tasks <= set(CHEXPERT.task_names) and task not in map(CHEXPERT.task_of, CHEXPERT.names):
            raise InputError(f"{name}: unknown task {quoted(task)}; the tasks of {source} are CheXlocalize's")


def unscored_tasks(source: HeatMapSource, ground_truth: GroundTruth) -> dict[str, str]:
    """Task -> why it cannot be scored: of the ground truth's tasks, and of the maps'."""
    entries = set(source.entries)
    with_maps = {task for _, task in entries}
    reasons = dict.fromkeys(sorted(with_maps - set(ground_truth.tasks)), "not in the ground truth")
    for task in ground_truth.tasks:
        films = [image_id for image_id in ground_truth.image_ids if ground_truth.annotates(image_id, task)]
        if task not in with_maps:
            reasons[task] = "no heat map"
        elif not any((image_id, task) in entries for image_id in films):
            reasons[task] = "no film with both a heat map and ground truth"
        elif not any(ground_truth.area(image_id, task) for image_id in films):
            reasons[task] = "outlined in no film"
    return reasons


def unscored_lines(source: HeatMapSource, ground_truth: GroundTruth) -> list[str]:
    """`unscored_tasks` for a reader: one line per reason."""
    by_reason: dict[str, list[str]] = {}
    for task, reason in unscored_tasks(source, ground_truth).items():
        by_reason.setdefault(reason, []).append(task)
    return [f"not scored, {reason}: {', '.join(tasks)}" for reason, tasks in by_reason.items()]


def with_kinds(table: pd.DataFrame, column: str, kinds: Mapping[str, str]) -> pd.DataFrame:
    """The table with a column `kind` (`mask` or `box`) per task where some regions are boxes; else as it is."""
    if "box" not in kinds.values():
        return table
    mixed = "/".join(sorted(set(kinds.values())))  # of a mean over tasks
    return table.assign(kind=[kinds.get(task, mixed) for task in table[column]])
