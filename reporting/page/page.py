"""One self-contained HTML page out of a results folder: tables, figures and a viewer of cases, opened from disk.

Everything is inlined, and the page's own policy forbids it to load anything else. Every text is escaped by jinja2; data
for the viewer lies in json blocks in which `<`, `>` and `&` are written as escapes. No text holds an absolute path.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cxr.files import replacing
from reporting.format import Table
from reporting.page.case_pictures import MapSources
from reporting.page.case_viewer import read_viewer
from reporting.page.facts import data_counts, run_facts
from reporting.page.opening import opening
from reporting.page.pictures import classification_pictures, curve_pictures
from reporting.page.private import without_paths
from reporting.page.tables import beside_paper, localization_tables
from reporting.paper import read_paper
from reporting.results import Results

PAGE_BYTES = 29_000_000
"""Films get pictures until the page has this size; a page under 30 MB opens in seconds and can be sent around."""

_TEMPLATES = Path(__file__).with_name("templates")
_SCRIPTS = ("state.js", "drawing.js", "contour.js", "patches.js", "case_list.js", "view.js", "links.js", "viewer.js")


def write_page(
    target: Path,
    results: Results,
    *,
    tables: Sequence[Table],
    pictures: Sequence[Path],
    sources: MapSources,
    dataset: str = "",
) -> tuple[str, ...]:
    """Writes the page atomically; returns the lines on what is missing that `results.missing` does not hold.

    tables, pictures: those of the report, PNG files among the latter.
    Raises InputError when a file of the results is damaged.
    """
    missing: list[str] = []
    shown, curves = classification_pictures(pictures, results), curve_pictures(results, missing)
    room = PAGE_BYTES - sum(len(picture.uri) for picture in (*shown, *curves))
    viewer = read_viewer(results, sources, room, missing)
    paper = read_paper()
    content = {
        "dataset": dataset,
        "opening": opening(results),
        "missing": [without_paths(line, results.folder) for line in (*results.missing, *missing)],
        "runs": [run_facts(model) for model in results.models],
        "counts": data_counts(results),
        "tables": [beside_paper(table, results, paper) for table in tables],
        "localization": localization_tables(results, dataset),
        "pictures": shown,
        "curves": curves,
        "viewer": viewer,
    }
    style, script = _read("style.css"), "\n".join(_read(name) for name in _SCRIPTS)
    inlined = {"style": Markup(style), "script": Markup(script), "policy": _policy(style, script)}
    with replacing(target) as temporary:
        page = _environment().get_template("page.html.j2").stream(content | inlined)
        page.dump(str(temporary), encoding="utf-8")
    return tuple(missing)


def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Content security policy: the page shows pictures that it holds, with this one style sheet and this one script."""
    return f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {_hashed(script)}"


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
