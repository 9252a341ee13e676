"""Content of the page's case viewer: the list of all cases, and pictures of as many films as there is room for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from cxr.names import METHODS, PROTOCOLS, localization_folder, methods_of
from reporting.numbers import read_numbers
from reporting.page.case_list import CaseList, read_case_list
from reporting.page.case_pictures import ACROSS, LEVELS, MAP_SIDE, MapSources, by_priority, film_pictures, larger_film
from reporting.page.facts import certificates_of
from reporting.page.film_sizes import STEPS, FilmSize
from reporting.pictures.overlays import OUTLINE, SIGNED, UNSIGNED
from reporting.results import Results

FULL_COLOUR = 0.5
"""The one scale of a label's evidence maps: the quantile, over the films, of a map's largest logit."""

_SCALES = 20_000
"""Characters, at most, of the logits of full colour, which are known when the films are."""


@dataclass(frozen=True)
class Viewer:
    """content: the list and everything about it, json. films: (row, json) of those with pictures, the film that is
    opened first in front, so that a browser can draw it before it has read the others. note: which these
    are. methods: number of methods to choose from. outline: the name of a mask's outline."""

    content: Markup
    films: Sequence[tuple[int, Markup]]
    note: str
    methods: int
    outline: str


def read_viewer(results: Results, sources: MapSources, budget: int, missing: list[str]) -> Viewer | None:
    """None without predictions of the test films; `missing` gets a line for every part that is not there.

    budget: characters that the viewer's data may take. Raises InputError when a file is damaged.
    """
    cases = read_case_list(results)
    if cases is None:
        missing.append(f"{results.folder}: no predictions of the test films, so no cases; made by ./runEval.sh")
        return None
    methods = _methods(results, sources, list(cases.probabilities))
    of_patches = [method["model"] for key, method in methods.items() if METHODS[key].network == "patch"]
    content = cases.content() | {
        "patchModel": of_patches[0] if of_patches else None,
        "certificates": certificates_of(results.patch),
        "methods": methods,
        "protocols": PROTOCOLS,
        "outline": sources.outline,
        "cuts": _cuts(results),
        "sheet": {"side": MAP_SIDE, "across": ACROSS},
        "colours": {
            "signed": _hex(SIGNED(np.linspace(0, 1, 2 * LEVELS + 1))),
            "unsigned": _hex(UNSIGNED(np.linspace(0, 1, 256))),
            "outline": OUTLINE,
        },
    }
    shown, size = shown_films(cases, sources, budget - len(_json(content)) - _SCALES)
    full: dict[str, dict[str, list[float]]] = {}
    for pictures in shown.values():
        _note_scales(pictures, full)
    content["fullColour"] = {
        key: {label: float(f"{np.quantile(found, FULL_COLOUR):.3g}") for label, found in of.items()}
        for key, of in full.items()
    }
    first = opened_first(cases, sorted(shown))
    content |= {"pictured": sorted(shown), "first": first, "mapped": _mapped(shown, cases)}
    order = sorted(shown, key=lambda row: first is None or row != first[0])  # stable: the case of the start leads
    films = [(row, _json(shown[row])) for row in order]
    missing += (*cases.missing, *sources.missing)
    return Viewer(_json(content), films, _note(cases, sources, len(films), size), len(methods), sources.outline)


def _methods(results: Results, sources: MapSources, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Method -> title, whether it is signed, and the place in `names` of the model that it explains (None: not there).

    Those of the patch network come first, by name; then those of the baseline, in the order of the tables' columns.
    """
    shown = {*results.methods, *(method for _, method in sources.maps)}
    order = [method for method in (*sorted(methods_of("patch")), *methods_of("baseline")) if method in shown]
    models = {method: results.model_of(method) for method in order}
    return {
        method: {
            "name": METHODS[method].title,
            "signed": METHODS[method].signed,
            "model": names.index(model.name) if model is not None and model.name in names else None,
        }
        for method, model in models.items()
    }


def opened_first(cases: CaseList, rows: Sequence[int]) -> tuple[int, int] | None:
    """Row and label of the case that the page opens: of the scored labels, the one the first model is surest of.

    rows: films with pictures, in ascending order; None without any.
    """
    if not rows:
        return None
    scored = [cases.labels.index(name) for name in cases.labels.names if cases.labels.task_of(name) in cases.tasks]
    columns = scored or list(range(len(cases.labels)))
    probabilities = next(iter(cases.probabilities.values()))[np.ix_(rows, columns)]
    row, column = np.unravel_index(np.argmax(np.nan_to_num(probabilities, nan=-1.0)), probabilities.shape)
    return rows[int(row)], columns[int(column)]


def _mapped(shown: Mapping[int, Mapping[str, Any]], cases: CaseList) -> list[int]:
    """Labels of which any film has a map."""
    names = {name for pictures in shown.values() for of_labels in pictures["maps"].values() for name in of_labels}
    return [column for column, name in enumerate(cases.labels.names) if name in names]


def shown_films(cases: CaseList, sources: MapSources, budget: int) -> tuple[dict[int, dict[str, Any]], FilmSize]:
    """Row -> its pictures, in the order of priority, and the size of their films.

    As many films as there is room for at the smallest size; then all of them at the largest size that fits. budget:
    characters of the pictures together.
    """
    shown: dict[int, dict[str, Any]] = {}
    for row in by_priority(cases, sources.films):
        pictures = film_pictures(cases.films[row], sources, cases.labels, STEPS[-1])
        if len(_json(pictures)) > budget:
            return shown, STEPS[-1]
        budget -= len(_json(pictures))
        shown[row] = pictures
    for size in STEPS[:-1]:
        larger = _larger_films(shown, cases, sources, size, budget)
        if larger is not None:
            return {row: pictures | {"film": larger[row]} for row, pictures in shown.items()}, size
    return shown, STEPS[-1]


def _larger_films(
    shown: Mapping[int, Mapping[str, Any]], cases: CaseList, sources: MapSources, size: FilmSize, budget: int
) -> dict[int, str] | None:
    """Row -> its film in this size; None as soon as they take more than `budget` characters in addition."""
    larger: dict[int, str] = {}
    for row, pictures in shown.items():
        larger[row] = larger_film(cases.films[row], sources, size)
        budget -= len(larger[row]) - len(pictures["film"])
        if budget < 0:
            return None
    return larger


def _note_scales(pictures: Mapping[str, Any], full: dict[str, dict[str, list[float]]]) -> None:
    """Adds a film's logits of full colour to `full`: "protocol method" -> label -> those of all films."""
    for key, of_labels in pictures["maps"].items():
        for label, (_, _, _, *logit) in of_labels.items():
            if logit:
                full.setdefault(key, {}).setdefault(label, []).extend(logit)


def _cuts(results: Results) -> dict[str, dict[str, float]]:
    """ "protocol method" -> label -> the map's tuned threshold, between its least (0) and its most (1)."""
    cuts: dict[str, dict[str, float]] = {}
    for method in METHODS:
        model = results.model_of(method)
        if model is None:
            continue
        for protocol in PROTOCOLS:
            path = localization_folder(model.folder, protocol, method) / "tuning_results.csv"
            if path.is_file():
                table = read_numbers(path, ("threshold",), text=("task",), low=0, high=1).dropna(subset="threshold")
                labels = map(results.labels.label_of, table["task"])
                cuts[f"{protocol} {method}"] = dict(zip(labels, table["threshold"].tolist(), strict=True))
    return cuts


def _note(cases: CaseList, sources: MapSources, shown: int, size: FilmSize) -> str:
    """Says which films have pictures, by what rule, and how large they are stored where room is short."""
    with_maps = len(sources.films & set(cases.films))
    if not with_maps:
        return "There are no heat maps of these films, so there are no pictures of them."
    smaller = f" To keep the page under 30 MB, films are stored at most {size.side} pixels on the short side"
    smaller += f", JPEG quality {size.quality}."
    if shown == with_maps:
        note = f"{shown} of {len(cases.films)} films have heat maps; all of them are shown."
        return note if size == STEPS[0] else note + smaller
    return (
        f"{shown} of the {with_maps} films with heat maps have their pictures in this page, which is kept under 30 MB. "
        "They are chosen by rule: in turn over the pathologies and over true and false positives and negatives, the "
        f"film of which the first model is surest. The list holds all films.{smaller}"
    )


def _json(content: Mapping[str, Any]) -> Markup:
    """As a script block may hold it: nothing in it can end the block, whatever a label or path says."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hex(colours: np.ndarray) -> str:
    """(N, 4) in [0, 1] -> six digits per colour, one after the other."""
    return (colours[:, :3] * 255).round().astype(np.uint8).tobytes().hex()
