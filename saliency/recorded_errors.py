"""A stage of a results folder: the estimated error of every map whose evidence was computed with a stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxr.names import SPLITS, evidence_folder, map_errors_file
from cxr.runs.run_record import RunRecord
from cxr.tables import write_csv
from saliency.evidence.evidence_files import SUFFIX, read_grids
from saliency.evidence.stride_error import stride_errors


def make_map_errors(record: RunRecord, split: str, ids: Sequence[str]) -> list[str]:
    """`map_errors_<split>.csv`: the estimate per film and task, and its mean in the record; returns lines to print.

    ids: of the films, all with evidence files of a stride.
    """
    target = map_errors_file(record.folder, split)
    evidence = record.outputs_fingerprint(f"heat_maps_{split}")
    made_from: dict[str, Any] = {"inputs": {"evidence": evidence}, "options": {}, "outputs": [target]}
    if record.is_complete(f"map_errors_{split}", **made_from):
        return [f"{target}: complete"]
    with record.stage(f"map_errors_{split}", **made_from) as stage:
        table = pd.concat([_of_film(record, split, film_id) for film_id in ids])
        write_csv(target, table)
        stage.wrote(target)
        errors = table["estimated_error_percent"]
        noted: dict[str, Any] = {"stride": int(table["stride"].iloc[0]), "maps": len(table)}
        noted |= {"mean_percent": _rounded(errors.mean()), "largest_percent": _rounded(errors.max())}
        stage.note({"estimated_map_error": {split: noted}})
    size = "not known, for no map has a range"
    if noted["mean_percent"] is not None:
        size = f"{noted['mean_percent']}% of a map's range on average, {noted['largest_percent']}% for the worst map"
    return [f"{target}: evidence every {noted['stride']} px; estimated error of {SPLITS[split]} maps {size}"]


def _of_film(record: RunRecord, split: str, film_id: str) -> pd.DataFrame:
    facts, grids = read_grids(evidence_folder(record.folder, split) / f"{film_id}{SUFFIX}")
    errors = stride_errors(torch.from_numpy(np.stack(list(grids.values()))), facts.grid)
    columns = {"film": film_id, "task": list(grids), "stride": facts.stride, "estimated_error_percent": errors.numpy()}
    return pd.DataFrame(columns)


def _rounded(percent: float) -> float | None:
    """None, which json can hold, where no map has a range."""
    return round(float(percent), 3) if np.isfinite(percent) else None
