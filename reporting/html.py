"""One self-contained HTML page out of a results folder: tables, figures and a viewer of cases, opened from disk.

Everything is inlined, and the page's own policy forbids it to load anything else. Every text is escaped by jinja2; data
for the viewer lies in json blocks in which `<`, `>` and `&` are written as escapes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chexpert.files import replacing
from reporting.case_list import CaseList, read_case_list
from reporting.case_pictures import ACROSS, LEVELS, MAP_SIDE, MapSources, by_priority, film_pictures
from reporting.format import Table
from reporting.localization_results import METHODS, PATCH_METHODS, PROTOCOLS
from reporting.overlays import OUTLINE, SIGNED, UNSIGNED
from reporting.page_facts import data_counts, run_facts
from reporting.page_figures import classification_pictures, curve_pictures
from reporting.page_tables import beside_paper, localization_tables
from reporting.results import Results, read_paper

PAGE_BYTES = 29_000_000
"""Films get pictures until the page has this size; a page under 30 MB opens in seconds and can be sent around."""

_TEMPLATES = Path(__file__).with_name("templates")
_METHOD_ORDER = (*sorted(PATCH_METHODS), *(method for method in METHODS if method not in PATCH_METHODS))
_SCRIPTS = ("state.js", "drawing.js", "patches.js", "case_list.js", "viewer.js")


def write_page(
    target: Path,
    results: Results,
    *,
    tables: Sequence[Table],
    pictures: Sequence[Path],
    sources: MapSources | None,
    dataset: str = "",
) -> tuple[str, ...]:
    """Writes the page atomically; returns the lines on what is missing that `results.missing` does not hold.

    tables, pictures: those of the report, PNG files among the latter. sources: None where there are no maps.
    Raises InputError when a file of the results is damaged.
    """
    missing: list[str] = []
    cases = read_case_list(results)
    viewer = None
    shown = classification_pictures(pictures, results)
    curves = curve_pictures(results, missing)
    if cases is None:
        missing.append(f"{results.folder}: no predictions of the test films, so no cases; made by ./runEval.sh")
    else:
        missing += cases.missing
        room = PAGE_BYTES - sum(len(picture.uri) for picture in (*shown, *curves))
        viewer = _viewer(cases, results.patch.name if results.patch else None, sources, room, missing)
    paper = read_paper()
    style, script = _read("style.css"), "\n".join(_read(name) for name in _SCRIPTS)
    page = (
        _environment()
        .get_template("page.html.j2")
        .stream(
            dataset=dataset,
            missing=(*results.missing, *missing),
            runs=[run_facts(model) for model in results.models],
            counts=data_counts(results),
            tables=[beside_paper(table, results, paper) for table in tables],
            localization=localization_tables(results, dataset),
            pictures=shown,
            curves=curves,
            viewer=viewer,
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
        )
    )
    with replacing(target) as temporary:
        page.dump(str(temporary), encoding="utf-8")
    return tuple(missing)


def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What the page may do: show pictures that it holds, and use this one style sheet and this one script."""
    return f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {_hashed(script)}"


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


@dataclass(frozen=True)
class Viewer:
    """content: the list and everything about it, json; films: (row, json) of those with pictures; note: which."""

    content: Markup
    films: Sequence[tuple[int, Markup]]
    note: str


def _viewer(
    cases: CaseList, patch_model: str | None, sources: MapSources | None, budget: int, missing: list[str]
) -> Viewer:
    names = list(cases.probabilities)
    content = cases.content() | {
        "patchModel": names.index(patch_model) if patch_model in names else None,
        "methods": {key: {"name": METHODS[key], "signed": key in PATCH_METHODS} for key in _METHOD_ORDER},
        "protocols": PROTOCOLS,
        "sheet": {"side": MAP_SIDE, "across": ACROSS},
        "colours": {
            "signed": _hex(SIGNED(np.linspace(0, 1, 2 * LEVELS + 1))),
            "unsigned": _hex(UNSIGNED(np.linspace(0, 1, 256))),
            "outline": OUTLINE,
        },
    }
    listed = _json(content)
    films = list(_films(cases, sources, budget - len(listed))) if sources is not None else []
    note = _note(cases, sources, len(films), missing)
    return Viewer(listed, films, note)


def _films(cases: CaseList, sources: MapSources, budget: int) -> Iterator[tuple[int, Markup]]:
    """Films in the order of their priority until the next one does not fit."""
    for row in by_priority(cases, sources.films):
        film = _json(film_pictures(cases.films[row], sources))
        budget -= len(film)
        if budget < 0:
            return
        yield row, film


def _note(cases: CaseList, sources: MapSources | None, shown: int, missing: list[str]) -> str:
    """Which films have pictures and why; and lines for what pictures there could be."""
    if sources is None or not sources.maps:
        missing.append("no heat maps of the test films, so no pictures of cases; made by ./runEval.sh")
        return "There are no heat maps of these films, so the list has no pictures."
    if sources.patches is None:
        missing.append(
            "no contributions of the patches: heat-map pickles do not hold them; evalClassification.py --no-pickles "
            "keeps evidence files, which do"
        )
    if sources.ground_truth is None:
        missing.append("no outlines of masks; give CheXlocalize's gt_segmentations_test.json as --gt-path")
    with_maps = len(sources.films & set(cases.films))
    if shown == with_maps:
        return f"{shown} of {len(cases.films)} films have heat maps; all of them are shown."
    return (
        f"{shown} of the {with_maps} films with heat maps have their pictures in this page, which is kept under 30 MB. "
        "They are chosen by rule: in turn over the pathologies and over true and false positives and negatives, the "
        "film of which the first model is surest. The list holds all films."
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
