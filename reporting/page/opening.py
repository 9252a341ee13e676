"""The page's opening: its main numbers in sentences."""

from __future__ import annotations

import math

from cxr.names import CONTROLS, METHODS, PRIOR, PROTOCOLS
from reporting.format import number
from reporting.label_words import means
from reporting.localization_results import HIT_RATE
from reporting.results import Results
from reporting.tables.localization_tables import control_means
from reporting.tables.paper_tables import METRICS


def opening(results: Results) -> list[str]:
    """At most three sentences: AUROC of the models, hit rates of the maps, the location prior's beside them."""
    return [sentence for sentence in (_auroc(results), *_maps(results)) if sentence]


def _auroc(results: Results) -> str:
    if not results.scored_models:
        return ""
    models = [model for model, _ in results.scored_models.values()]
    mean, (_, labels) = next(reversed(means(results.labels).items()))
    values = [f"{model.name} {number(results.estimate(model, mean, *METRICS['AUROC']).value)}" for model in models]
    films = max((len(model.predictions.ids) for model in models if model.predictions is not None), default=0)
    on = f" on {films} test films" if films else ""
    return f"Mean AUROC over {len(labels)} labels{on}: {', '.join(values)}."


def _maps(results: Results) -> list[str]:
    protocol = next((name for name in PROTOCOLS if results.localization_means(name, HIT_RATE)), None)
    if protocol is None:
        return []
    rates = {
        method: estimate.value
        for method, estimate in results.localization_means(protocol, HIT_RATE).items()
        if method in METHODS and not math.isnan(estimate.value)
    }
    ranked = sorted(rates, key=lambda method: -rates[method])
    words = ", ".join(f"{METHODS[method].title} {number(rates[method])}" for method in ranked)
    hits = f"Share of outlined findings in which a map’s maximum lies (mean hit rate, {protocol} protocol): {words}."
    prior = next(iter(control_means(results, protocol, HIT_RATE).get(CONTROLS[PRIOR], {}).values()), None)
    if prior is None:
        return [hits]
    above = [METHODS[method].title for method in ranked if rates[method] > prior.value]
    better = f"only {', '.join(above)} {'is' if len(above) == 1 else 'are'} above it" if above else "no map is above it"
    return [
        hits,
        f"The mean mask of other patients, which never saw the film, reaches {number(prior.value)}: {better}.",
    ]
