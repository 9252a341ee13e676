"""The data sets that makeManifest.py knows, by the names of their modules; only the one asked for is imported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cxr.files import InputError, quoted

if TYPE_CHECKING:
    from preprocessing.manifests.source import Source

NAMES = (
    *("chexpert", "chexlocalize", "nih", "google_nih", "mimic", "padchest", "vindr", "rsna", "siim", "brax", "taix"),
    "hannover",
)


def source_of(name: str) -> Source:
    """The description of a data set. Raises InputError for a name that is not known."""
    if name not in NAMES:
        raise InputError(f"--source {quoted(name)}: no such data set; known are {', '.join(NAMES)}")
    source: Source = import_module(f"preprocessing.sources.{name}").SOURCE
    return source
