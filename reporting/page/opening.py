"""The page's opening: its main numbers in sentences."""

from __future__ import annotations

import math

from cxr.names import CONTROLS, METHODS, PRIOR, PROTOCOLS
from reporting.format import number
from reporting.label_words import means
from reporting.localization_results import HIT_RATE, MIOU_TP
from reporting.results import Results
from reporting.tables.localization_tables import control_means
from reporting.tables.paper_tables import METRICS

_MEASURES = {
    HIT_RATE: "Share of outlined findings in which a map’s maximum lies (mean hit rate",
    MIOU_TP: "Overlap of outline and map above its threshold, over their union (mean IoU, true positives",
}
"""What the means of the maps are, up to the name of the protocol."""


def opening(results: Results) -> list[str]:
    """At most five sentences: AUROC of the models; hit rates of the maps and the location prior's; the same of IoU."""
    of_maps = (sentence for measure, words in _MEASURES.items() for sentence in _maps(results, measure, words))
    return [sentence for sentence in (_auroc(results), *of_maps) if sentence]


def _auroc(results: Results) -> str:
    if not results.scored_models:
        return ""
    models = [model for model, _ in results.scored_models.values()]
    mean, (_, labels) = next(reversed(means(results.labels).items()))
    values = [f"{model.name} {number(results.estimate(model, mean, *METRICS['AUROC']).value)}" for model in models]
    films = max((len(model.predictions.ids) for model in models if model.predictions is not None), default=0)
    on = f" on {films} test films" if films else ""
    return f"Mean AUROC over {len(labels)} labels{on}: {', '.join(values)}."


def _maps(results: Results, measure: str, words: str) -> list[str]:
    """A sentence with the mean of every method, the best first; and one on the methods above the location prior."""
    protocol = next((name for name in PROTOCOLS if results.localization_means(name, measure)), None)
    if protocol is None:
        return []
    found = {
        method: estimate.value
        for method, estimate in results.localization_means(protocol, measure).items()
        if method in METHODS and not math.isnan(estimate.value)
    }
    ranked = sorted(found, key=lambda method: -found[method])
    values = ", ".join(f"{METHODS[method].title} {number(found[method])}" for method in ranked)
    of_maps = f"{words}, {protocol} protocol): {values}."
    prior = next(iter(control_means(results, protocol, measure).get(CONTROLS[PRIOR], {}).values()), None)
    if prior is None or math.isnan(prior.value):
        return [of_maps]
    above = [METHODS[method].title for method in ranked if found[method] > prior.value]
    better = f"only {', '.join(above)} {'is' if len(above) == 1 else 'are'} above it" if above else "no map is above it"
    return [
        of_maps,
        f"The mean mask of other patients, which never saw the film, reaches {number(prior.value)}: {better}.",
    ]
