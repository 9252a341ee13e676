"""Scores films for `evalFaithfulness.py`: maps against effects of occlusion, curves and masks; pairs of drawn films."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from cxr.files import InputError, place, quoted
from cxr.labels import LabelSet
from cxr.manifests.films import Films
from cxr.names import PATCHES, PATCHES_RELATIVE, RELATIVE, methods_of
from cxr.runs.pool import in_processes
from evaluation.audit.body_outline import body_mask
from evaluation.audit.causal_pairs import pair_rows
from evaluation.audit.faithfulness import closed_curves
from evaluation.audit.faithfulness_tables import CropMask, FilmFacts, FilmScores, score_mask, score_task
from evaluation.localizing.outlined_films import OutlinedFilms
from saliency.audit.audit_maps import AuditSource
from saliency.audit.pair_maps import FilmPair, PairMaps
from saliency.evidence.folded_network import PatchNetwork

PositiveEvidence = dict[tuple[str, str], tuple[float, int]]
"""(label, method) -> sum of the positive contributions of a film's patches, and its ground truth."""


class FilmAuditor:
    """Scores one film after the other, in this process or in a worker."""

    def __init__(self, source: AuditSource, label_set: LabelSet, outlined: OutlinedFilms | None) -> None:
        self.source, self.label_set, self.outlined = source, label_set, outlined

    def __call__(self, film_id: str) -> tuple[FilmScores, PositiveEvidence]:
        """The scores of a film, and its positive evidence where the network is linear."""
        film = self.source.film(film_id)
        linear = self.source.closed_form is not None
        facts = FilmFacts(film_id, body_mask(film.crop_pixels), linear=linear)
        found, evidence = FilmScores(), PositiveEvidence()
        asked = asked_tasks(self.source, self.outlined, film_id) if linear else []
        for task in self.source.tasks:
            label, of_task = self.label_set.label_of(task), self.source.evidence(film, task)
            curves = closed_curves(of_task.patches, of_task.drops) if task in asked else of_task.curves
            scores = score_task(facts, label, of_task.maps, of_task.patches, of_task.drops, curves)
            size = self.source.image_size
            mask = CropMask.of(self.outlined.truth, film_id, task, size) if self.outlined is not None else None
            if mask is not None:
                score_mask(scores.rows, of_task.maps, mask)
            found.add(scores)
            for method in {PATCHES, PATCHES_RELATIVE} & of_task.patches.keys() if linear else ():
                positive = float(of_task.patches[method].clip(min=0).sum())
                evidence[label, method] = positive, film.ground_truth.get(task, -1)
        return found, evidence


def asked_tasks(source: AuditSource, outlined: OutlinedFilms | None, film_id: str) -> list[str]:
    """The tasks whose deletion and insertion curves are asked of a film: those that it has, or that are outlined."""
    truth = source.ground_truth(film_id)
    masks = outlined.truth if outlined is not None and film_id in outlined.truth else None
    return [t for t in source.tasks if truth.get(t) == 1 or (masks is not None and masks.area(film_id, t))]


_auditor: FilmAuditor


def _set_up(*arguments: Any) -> None:
    global _auditor
    torch.set_num_threads(1)
    _auditor = FilmAuditor(*arguments)


def _score(film_id: str) -> tuple[FilmScores, PositiveEvidence]:
    return _auditor(film_id)


def scored_films(
    source: AuditSource, label_set: LabelSet, outlined: OutlinedFilms | None, workers: int
) -> Iterator[tuple[str, tuple[FilmScores, PositiveEvidence]]]:
    """(film id, what `FilmAuditor` finds) of every film, in order, from worker processes."""
    arguments = (source, label_set, outlined)
    results = in_processes(_score, source.film_ids, workers, chunk=4, set_up=_set_up, arguments=arguments)
    films = tqdm(source.film_ids, desc=f"audit {source.results.name}", unit="film", disable=None)
    yield from zip(films, results, strict=True)


def scored_pairs(
    model: PatchNetwork,
    folder: Path,
    films: Films,
    pairs: Sequence[FilmPair],
    outlined: OutlinedFilms | None,
    reading: Mapping[str, Any],
) -> pd.DataFrame:
    """The rows of `pair_rows` of every pair. reading: steps_per_patch, data and batch_size of `PairMaps`.

    Raises InputError for a film that cannot be read, and for a finding without a mask.
    """
    if outlined is None:
        raise InputError(f"{place(folder)}: no regions.json with the masks of the findings")
    chosen = methods_of("patch" if model.patch_size < model.image_size else "baseline")
    runner = PairMaps(model, [method for method in chosen if method != RELATIVE], **reading)
    rows = []
    for change in tqdm(runner.changes(folder, films, pairs), desc="pairs", total=len(pairs), unit="pair", disable=None):
        mask = CropMask.of(outlined.truth, change.film_id, change.pair.task, model.image_size)
        if mask is None:
            raise InputError(f"{place(folder)}: no mask of {quoted(change.pair.task)} in {quoted(change.film_id)}")
        rows += pair_rows(change.film_id, change.pair.label, change.logit, change.maps, mask.inside)
    return pd.DataFrame(rows)
