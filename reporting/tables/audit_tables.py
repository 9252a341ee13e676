"""The audit of the maps: whether they say what the network does, where their evidence lies, and the causal test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from cxr.names import AUDITED, CHANCE
from reporting.format import UNDEFINED, Block, Cell, Table, interval, plain
from reporting.results import Model, Results
from reporting.tables.paper_tables import of_dataset

QUESTION = "Do the maps say what the network does?"

_EFFECTS = {
    "correlation": "Rank correlation: do patches with a higher value in the map lower the logit more when they are "
    "filled? 1 yes, in that order; 0 no relation",
    "top1": "Top patch: share of films in which the map's highest patch is the one that lowers the logit most",
    "deletion": "Deletion: area that filling patches in the map's order gains over a random order, as a share of what "
    "the best order gains",
    "insertion": "Insertion: the same when patches come back into a film that was filled throughout",
    "deletion_gain": "Deletion, in logits: how much lower the logit is on average while patches are filled in the "
    "map's order instead of a random one, over films with the finding or an outline",
    "insertion_gain": "Insertion, in logits: how much higher it is on average while patches come back in that order",
    "infidelity": "Infidelity: share of the squared effects that the map does not explain, times its best factor; 0 is "
    "best",
}
_FILLS = {"black": "Black", "mean": "Film mean", "none": "Evidence removed", "validation": "Validation patches"}
"""In the order of the columns; other fills are grey values."""

_REGIONS = {
    "energy": ("In mask", "share of the map's positive evidence inside the mask"),
    "hit": ("Hit rate", "share of films whose map has its maximum inside the mask, of maps that Table 3 does not have"),
    "auroc": ("AUROC", "probability that a pixel in the mask has a higher value than one outside"),
    "auprc": ("AUPRC", "average precision of finding the mask's pixels by the map's value"),
    "gridpg": ("Grid", "share of the positive evidence in the one film with the finding, of a grid of four films"),
    "border": ("Border", "share of the positive evidence in the outermost 5% of the square that the network sees"),
    "outside": ("Outside body", "share of the positive evidence outside the body's outline"),
}
_PAIRS = {
    "agreement": ("Agreement", "rank correlation, over pairs, of the logit's change with the map's in the mask"),
    "inside": ("In mask", "share of the map's absolute change that lies in the mask"),
    "sign": ("Same sign", "share of pairs in which the map's change in the mask has the sign of the logit's"),
}
_CHANCE_TITLE = "A map that says nothing"


def audit_tables(results: Results, dataset: str = "") -> list[Table]:
    """Those of the tables whose files are there."""
    audited = [model for model in results.models if model.audit is not None]
    tables = []
    if audited:
        found = _means(model.audit for model in audited)
        if found["metric"].isin(list(_EFFECTS)).any():
            tables.append(_effects_table(found, audited, dataset))
        tables.append(_regions_table(found, dataset))
    paired = [model for model in results.models if model.pairs is not None]
    return [*tables, _pairs_table(_means(model.pairs for model in paired), dataset)] if paired else tables


def _means(parts: Iterable[pd.DataFrame | None]) -> pd.DataFrame:
    """The rows of means of both networks, the values that are there; of chance the first network's."""
    table = pd.concat([part for part in parts if part is not None])
    rows = table[(table["label"] == "Mean") & table["value"].notna()]
    return rows.drop_duplicates(["metric", "method", "fill"] if "fill" in rows else ["metric", "method"])


def _methods(found: pd.DataFrame) -> list[str]:
    return [method for method in (*AUDITED, CHANCE) if method in set(found["method"])]


def _title(method: str) -> str:
    if method == CHANCE:
        return _CHANCE_TITLE
    return AUDITED[method].title + ("" if AUDITED[method].in_paper else "†")


def _cell(found: pd.DataFrame, **chosen: str) -> str:
    """Value and interval of the row; a dash where there is none."""
    rows = found
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    return UNDEFINED if rows.empty else interval(*rows[["value", "ci_low", "ci_high"]].iloc[0])


def _effects_table(found: pd.DataFrame, models: Sequence[Model], dataset: str) -> Table:
    rows = found[found["metric"].isin(list(_EFFECTS))]
    there = list(dict.fromkeys(rows["fill"]))
    fills = [*(fill for fill in _FILLS if fill in there), *(fill for fill in there if fill not in _FILLS)]
    blocks = []
    for metric, meaning in _EFFECTS.items():
        of_metric = rows[rows["metric"] == metric]
        cells = [
            (Cell(_title(method)), *plain(*(_cell(of_metric, method=method, fill=fill) for fill in fills)))
            for method in _methods(of_metric)
        ]
        blocks += [Block(meaning, tuple(cells))] if cells else []
    return Table(
        "audit_effects",
        QUESTION,
        f"One patch of a test film{of_dataset(dataset)} after the other is filled, and the logit is looked at; each "
        "method's map is judged by what filling does to its own network. Means over labels with 95% intervals.",
        ("Method", *(_FILLS.get(fill, f"Grey {fill}") for fill in fills)),
        tuple(blocks),
        (
            "Patch evidence is 1 by construction: filling a patch changes the mean of the patch logits by what that "
            "patch's logit changes by. Relative evidence answers another question: what changes when patches of "
            "validation films take the patch's place.",
            "Effects of the whole-film network were computed by forward passes, on the same patches; they do not add "
            "up, so that there is no best order in closed form. Its deletion and insertion in logits are of some "
            "films, drawn by hash (evalFaithfulness.py --curve-films). Logits of two networks have two scales.",
            "† not in the paper.",
            *_notes(models),
        ),
        rows,
    )


def _notes(models: Sequence[Model]) -> Iterable[str]:
    """Why a measure is missing, for each network."""
    for model in models:
        if model.audit is None:
            continue
        rows = model.audit[model.audit["value"].isna() & (model.audit["method"] == "")]
        for reason in dict.fromkeys(rows["note"]):
            names = ", ".join(rows[rows["note"] == reason]["metric"])
            yield f"{UNDEFINED} {model.name}: {names} {reason}."


def _regions_table(found: pd.DataFrame, dataset: str) -> Table:
    return _plain_table(
        "audit_regions",
        "Where the evidence lies",
        f"Test films{of_dataset(dataset)}: what speaks for a label, by place. Means over labels with 95% intervals.",
        _REGIONS,
        found,
        ("Mask measures are over films with the finding; † not in the paper.",),
    )


def _pairs_table(found: pd.DataFrame, dataset: str) -> Table:
    return _plain_table(
        "audit_pairs",
        "The causal test",
        f"Films that were drawn twice{of_dataset(dataset)}, with one finding and without it, all else the same: does "
        "the map change where the finding is, as much as the logit does? Means over labels with 95% intervals.",
        _PAIRS,
        found,
        ("Relative maps change as raw ones do: the reference is the same for both films. † not in the paper.",),
    )


def _plain_table(
    name: str,
    title: str,
    caption: str,
    measures: dict[str, tuple[str, str]],
    found: pd.DataFrame,
    notes: Sequence[str],
) -> Table:
    """A row per method and a column per measure, each explained in a note."""
    there = {metric: texts for metric, texts in measures.items() if metric in set(found["metric"])}
    rows = found[found["metric"].isin(list(there))]
    cells = [
        (Cell(_title(method)), *plain(*(_cell(rows, method=method, metric=metric) for metric in there)))
        for method in _methods(rows)
    ]
    meanings = [f"{column}: {meaning}." for column, meaning in there.values()]
    columns = ("Method", *(column for column, _ in there.values()))
    return Table(name, title, caption, columns, (Block("", tuple(cells)),), (*meanings, *notes), rows)
