"""The data sets that makeManifest.py knows: one module and one row each."""

from __future__ import annotations

from preprocessing.manifests.source import Source
from preprocessing.sources import (
    brax,
    chexlocalize,
    chexpert,
    google_nih,
    hannover,
    mimic,
    nih,
    padchest,
    rsna,
    siim,
    taix,
    vindr,
)

SOURCES: dict[str, Source] = {
    "chexpert": chexpert.SOURCE,
    "chexlocalize": chexlocalize.SOURCE,
    "nih": nih.SOURCE,
    "google_nih": google_nih.SOURCE,
    "mimic": mimic.SOURCE,
    "padchest": padchest.SOURCE,
    "vindr": vindr.SOURCE,
    "rsna": rsna.SOURCE,
    "siim": siim.SOURCE,
    "brax": brax.SOURCE,
    "taix": taix.SOURCE,
    "hannover": hannover.SOURCE,
}
