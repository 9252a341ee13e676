"""The summary that ends a report on the terminal: plain text of at most 100 columns, the numbers of Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cxr.files import printable
from cxr.names import METHODS
from reporting.format import UNDEFINED, number
from reporting.label_words import means, shortened
from reporting.localization_results import HIT_RATE, MEASURES, MIOU_ALL, MIOU_TP, Localization
from reporting.paper_tables import METRICS
from reporting.results import Results

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
    scored = {measure: results.scored(protocol, measure) for measure in MEASURES}
    head = [f"Tables 2 and 3, {protocol}, means", *(_HEADS[measure] for measure in scored)]
    methods = [method for method in results.methods if any(method in items for items in scored.values())]
    rows = [
        [METHODS[method].title, *(_mean(items.get(method), len(results.tasks)) for items in scored.values())]
        for method in methods
    ]
    yield from _columns(head, rows)


def _mean(item: Localization | None, tasks: int) -> str:
    """The mean over the tasks, and how many of them it covers where it is not all."""
    if item is None:
        return UNDEFINED
    return number(item.mean.value) + ("" if len(item.covered) == tasks else f" ({len(item.covered)} of {tasks})")


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right, each as wide as its longest cell."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells)[:WIDTH].rstrip()
