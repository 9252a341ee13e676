"""The summary that ends a report on the terminal: plain text of at most 100 columns, the numbers of Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from cxr.files import printable
from cxr.names import CENTRE, CHANCE, CONTROLS, LOCALIZED, PRIOR
from reporting.control_results import MEASURES as CONTROL_MEASURES
from reporting.control_results import below_prior, title
from reporting.format import number
from reporting.label_words import means, shortened
from reporting.localization_results import HIT_RATE, MEASURES, MIOU_ALL, MIOU_TP
from reporting.numbers import Estimate
from reporting.results import Results
from reporting.tables.localization_tables import control_means
from reporting.tables.paper_tables import METRICS

WIDTH = 100
_HEADS = {HIT_RATE: "hit rate", MIOU_ALL: "mIoU (TP, FP, FN)", MIOU_TP: "mIoU (TP only)"}


def summary(results: Results) -> str:
    """Table 1 with a row per metric and mean, and the mean rows of Tables 2 and 3 with a row per method."""
    parts = [_models(results)] if results.scored_models else []
    parts += [_methods(results, protocol) for protocol in results.protocols]
    return "\n\n".join("\n".join(part) for part in parts)


def _models(results: Results) -> Iterator[str]:
    models = [model for model, _ in results.scored_models.values()]
    head = ["Table 1, means", *(shortened(printable(model.name), 20) for model in models)]
    rows = []
    for name, key in METRICS.items():
        for mean, (_, labels) in means(results.labels).items():
            values = [results.estimate(model, mean, *key).value for model in models]
            difference = [values[0] - values[1]] if len(values) == 2 else []
            covered = _share(len(results.covered(mean, *key)), len(labels), "labels")
            rows.append([f"{name}, {_group(mean)}{covered}", *map(number, (*values, *difference))])
    yield from _columns([*head, "difference"] if len(models) == 2 else head, rows)


def _group(mean: str) -> str:
    """`CheXlocalize` of `Mean (CheXlocalize 10)`, `all` of `Mean (14)`, `shared` of `Mean (8 shared)`."""
    first, _, last = mean.removeprefix("Mean (").removesuffix(")").rpartition(" ")
    return last if last == "shared" else shortened(first, 20) or "all"


def _share(covered: int, total: int, unit: str) -> str:
    return f", {total} {unit}" if covered == total else f", {covered} of {total} {unit}"


def _methods(results: Results, protocol: str) -> Iterator[str]:
    """A row per method, then the controls that belong to none, and a sentence on the methods below the prior."""
    means = {measure: results.localization_means(protocol, measure) for measure in MEASURES}
    controls = {measure: control_means(results, protocol, measure) for measure in (HIT_RATE, MIOU_TP)}
    head = [f"Tables 2 and 3, {protocol}, means", *(_HEADS[measure] for measure in MEASURES)]
    methods = [method for method in results.methods if any(method in items for items in means.values())]
    rows = [
        [LOCALIZED[method].title, *(number(items.get(method, Estimate()).value) for items in means.values())]
        for method in methods
    ]
    for control in (CONTROLS[name] for name in (CHANCE, CENTRE, PRIOR)):
        of_control = [next(iter(controls.get(measure, {}).get(control, {}).values()), None) for measure in MEASURES]
        if any(of_control):
            rows.append([f"Control: {control}", *(number((estimate or Estimate()).value) for estimate in of_control)])
    yield from _columns(head, rows)
    if covered := _covered(results, protocol):
        yield from _wrapped(f"Means over the tasks that every method defines: {covered}.")
    if protocol in results.controls:
        for metric, name in CONTROL_MEASURES.items():
            below = ", ".join(map(title, below_prior(results.controls[protocol].added_value, metric)))
            yield from _wrapped(f"Do not beat the location prior in {name}: {below or 'none'}.")


def _wrapped(sentence: str) -> list[str]:
    return wrap(sentence, WIDTH, break_on_hyphens=False)


def _covered(results: Results, protocol: str) -> str:
    """How many of the tasks the means of a measure cover, where that is not all."""
    counts = {measure: len(results.shared_tasks(protocol, measure)) for measure in MEASURES}
    fewer = [(measure, count) for measure, count in counts.items() if count not in (0, len(results.tasks))]
    return ", ".join(f"{count} of {len(results.tasks)} ({_HEADS[measure]})" for measure, count in fewer)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right, each as wide as its longest cell."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells)[:WIDTH].rstrip()
