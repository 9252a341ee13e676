"""Localization of several data seeds, each alone and pooled, beside the controls: what holds for every draw of films?

    python -m benchmarks.pool_seeds demo/seed0 demo/seed1 demo/seed2

Every folder holds one run: `data/CheXlocalize` and `results/<model>`, with heat maps. Localization and its controls are
scored where they are not complete (intervals over patients); the audit of evalFaithfulness.py is read where it is
there. Prints Markdown: mean hit rate and mIoU (true positives) over the tasks, per seed and pooled, with 95% intervals;
then differences, and whether each holds in all seeds; then the same of the audit's measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import cli
import evalLocalization
from benchmarks.measure import machine
from benchmarks.pooled import audit as pooled_audit
from cxr.names import (
    AUDITED,
    CONTROLS,
    LOCALIZED,
    POSTERIOR,
    PRIOR,
    RELATIVE,
    SHUFFLED,
    SHUFFLED_WITH_PRIOR,
    SIGNED_CAM,
    SIGNED_CAM_RELATIVE,
    WITH_PRIOR,
    localization_folder,
)
from cxr.paths import patient_of
from cxr.tables import write_csv
from evaluation.bootstrap import units_of
from evaluation.film_statistics import Resampling, mean_rows, paired_differences
from evaluation.localizing.control_tables import HIT_RATE, IOU, cell_table
from evaluation.localizing.controls import OF_NO_METHOD
from evaluation.localizing.localized import NO_METHOD_FILE, PER_FILM, read_cells, read_cells_file, read_per_film

EXAMPLE = "python -m benchmarks.pool_seeds demo/seed0 demo/seed1 demo/seed2"
PROTOCOL = "corrected"
KINDS = {HIT_RATE: "hit", IOU: "iou"}
WORDS = {HIT_RATE: "hit rate", IOU: "mIoU (TP only)", **pooled_audit.WORDS}

Key = tuple[str, str]
"""(metric, row): the row is a method, a control, or `<method> <control>`."""


@dataclass(frozen=True)
class Seed:
    """Film x task of every row of the tables; patients: of the films, in their order."""

    name: str
    tables: Mapping[Key, pd.DataFrame]
    patients: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLE)
    add = parser.add_argument
    add("seeds", type=cli.path, nargs="+", help="folders with data/CheXlocalize and results/<model>")
    add("--resamples", type=cli.whole_number(1, 10**8), default=1000, help="of the patients")
    add("--workers", type=cli.whole_number(0, 1024), default=cli.usable_cores(), help="processes")
    add("--seed", type=cli.whole_number(0, 2**32 - 1), default=0, help="of the resamples and the shuffled maps")
    add("--out", type=cli.path, default=Path("benchmarks/results/pool_seeds.csv"), help="result file")
    args = parser.parse_args(argv)
    for folder in args.seeds:
        score(folder, args.resamples, args.seed, args.workers)
    tables = []
    for read in (read_seed, read_audit):
        seeds = [read(folder) for folder in args.seeds]
        if not all(seed.tables for seed in seeds):
            print("no audit of every seed (evalFaithfulness.py): its measures are left out\n")
            continue
        if len(seeds) > 1:
            seeds.append(pooled(seeds))
        values = value_rows(seeds, args.resamples, args.seed)
        differences = difference_rows(seeds, args.resamples, args.seed)
        tables += [values, differences]
        print("\n".join([*value_lines(values), "", *difference_lines(differences), ""]))
    write_csv(args.out, pd.concat(tables).assign(machine=machine()))
    print(f"wrote {args.out}")
    return 0


def models_of(folder: Path) -> list[Path]:
    """The results folders of a run."""
    return sorted(path.parent for path in (folder / "results").glob("*/run.json"))


def score(folder: Path, resamples: int, seed: int, workers: int) -> None:
    """Every method and its controls of one run; what is complete stays."""
    models = models_of(folder)
    options = ["--chexlocalize", folder / "data/CheXlocalize", "--resample-unit", "patient"]
    options += ["--resamples", resamples, "--seed", seed, "--workers", workers]
    evalLocalization.main([str(argument) for argument in [*models, *options]])


def read_seed(folder: Path) -> Seed:
    """Scores per film of all methods and controls of one run."""
    tables: dict[Key, pd.DataFrame] = {}
    patients: dict[str, str] = {}
    films: list[str] = []
    tasks: list[str] = []
    for model in models_of(folder):
        place = localization_folder(model, PROTOCOL, "")
        cells = read_cells_file(place / NO_METHOD_FILE, OF_NO_METHOD)
        patients |= dict(zip(cells["img_id"], cells["patient"], strict=True))
        films, tasks = sorted(patients), sorted(set(cells["task"]))
        of_none = {column: cell_table(cells, column, films, tasks) for column in OF_NO_METHOD}
        for metric, kind in KINDS.items():
            tables |= {(metric, control): of_none[f"{control}_{kind}"] for control in ("centre", PRIOR)}
            tables[metric, "chance"] = of_none["chance"]
        for method in (method for method in LOCALIZED if (place / method).is_dir()):
            tables |= _of_method(place / method, method, films, tasks)
    hits = pooled_audit.audited_hits(models_of(folder), films, tasks)
    tables |= {(HIT_RATE, method): table for method, table in hits.items()}
    return Seed(folder.name, tables, tuple(patients[film] for film in sorted(patients)))


def read_audit(folder: Path) -> Seed:
    """Measures of the audit per film, of all methods of one run; without tables where it was not audited."""
    tables = pooled_audit.audit_tables(models_of(folder))
    films = next(iter(tables.values())).index if tables else []
    return Seed(folder.name, tables, tuple(patient_of(film) for film in films))


def _of_method(
    folder: Path, method: str, films: Sequence[str], tasks: Sequence[str]
) -> Iterator[tuple[Key, pd.DataFrame]]:
    if method == POSTERIOR:
        for metric, name in PER_FILM.items():
            yield (metric, method), read_per_film(folder / name).reindex(index=films, columns=tasks)
        return
    cells = read_cells(folder, films, tasks)
    for metric, kind in KINDS.items():
        yield (metric, method), cells.own[metric]
        yield (metric, f"{method} {SHUFFLED}"), cells.controls[f"{SHUFFLED}_{kind}"]
    for control in (WITH_PRIOR, SHUFFLED_WITH_PRIOR):
        yield (HIT_RATE, f"{method} {control}"), cells.controls[f"{control}_hit"]


def pooled(seeds: Sequence[Seed]) -> Seed:
    """The films of all seeds together; a patient of one seed is nobody of another."""
    shared = [key for key in seeds[0].tables if all(key in seed.tables for seed in seeds)]
    tables = {
        key: pd.concat([seed.tables[key].rename(index=lambda film, of=seed.name: f"{of}/{film}") for seed in seeds])
        for key in shared
    }
    return Seed("pooled", tables, tuple(f"{seed.name}/{patient}" for seed in seeds for patient in seed.patients))


def _resampling(seed: Seed, resamples: int, random_seed: int) -> Resampling:
    films = list(next(iter(seed.tables.values())).index)
    return Resampling(units_of(films, seed.patients, "patient"), resamples, random_seed, "patient")


def value_rows(seeds: Sequence[Seed], resamples: int, random_seed: int) -> pd.DataFrame:
    """Mean over the tasks of every method and control: per seed, and pooled."""
    rows = []
    for seed in seeds:
        resampling = _resampling(seed, resamples, random_seed)
        for (metric, row), table in seed.tables.items():
            mean = mean_rows(table, resampling, hits=False)[-1]
            rows.append({"metric": metric, "row": row, "against": "", "seed": seed.name} | mean)
    return pd.DataFrame(rows).drop(columns=["name", "note"])


def compared(tables: Mapping[Key, pd.DataFrame]) -> list[tuple[str, str, str]]:
    """(metric, a, b) of the differences that are tabulated."""
    methods = [method for method in LOCALIZED if (HIT_RATE, method) in tables and method != POSTERIOR]
    pairs = [(metric, RELATIVE, other) for metric in KINDS for other in methods if other != RELATIVE]
    pairs += [(metric, method, PRIOR) for metric in KINDS for method in methods]
    for method in methods:
        pairs.append((HIT_RATE, method, f"{method} {SHUFFLED}"))
        pairs.append((HIT_RATE, f"{method} {WITH_PRIOR}", PRIOR))
        pairs.append((HIT_RATE, f"{method} {WITH_PRIOR}", f"{method} {SHUFFLED_WITH_PRIOR}"))
    others = [(RELATIVE, SIGNED_CAM_RELATIVE), *((SIGNED_CAM_RELATIVE, b) for b in (SIGNED_CAM, "gradcam", PRIOR))]
    pairs += [(HIT_RATE, a, b) for a, b in others]
    known = [pair for pair in pairs if all((pair[0], side) in tables for side in pair[1:])]
    return known + pooled_audit.compared(tables)


def difference_rows(seeds: Sequence[Seed], resamples: int, random_seed: int) -> pd.DataFrame:
    """a - b over the film-task pairs that both define: mean over the tasks, per seed and pooled."""
    rows = []
    for seed in seeds:
        resampling = _resampling(seed, resamples, random_seed)
        for metric, a, b in compared(seed.tables):
            first, second = seed.tables[metric, a], seed.tables[metric, b]
            both = first.notna() & second.notna()
            mean = paired_differences(first.where(both), second.where(both), resampling).iloc[-1]
            bounds = {"ci_low": mean["lower"], "ci_high": mean["upper"], "resamples": mean["resamples"]}
            facts = {"metric": metric, "row": a, "against": b, "seed": seed.name, "films": int(both.to_numpy().sum())}
            rows.append(facts | {"value": mean["difference"]} | bounds)
    return pd.DataFrame(rows)


def title(row: str) -> str:
    """`MedicalPatchNet (Relative), another film's map` of `relative shuffled`."""
    method, _, control = row.partition(" ")
    if method in CONTROLS:
        return CONTROLS[method]
    name = (LOCALIZED[method] if method in LOCALIZED else AUDITED[method]).title
    return {
        "": name,
        SHUFFLED: f"{name}, another film's",
        WITH_PRIOR: f"{name} × prior",
        SHUFFLED_WITH_PRIOR: f"{name} × prior, another film's map",
    }[control]


def value_lines(values: pd.DataFrame) -> Iterator[str]:
    """A Markdown table per metric, a row per method and control, a column per seed."""
    seeds = list(dict.fromkeys(values["seed"]))
    for metric, of_metric in values.groupby("metric", sort=False):
        yield from ("", f"| {WORDS[str(metric)]} | {' | '.join(seeds)} |", "| :-- |" + " --: |" * len(seeds))
        order = sorted(dict.fromkeys(of_metric["row"]), key=_place)
        for row in order:
            cells = [_cell(of_metric, row, "", seed, signed=False) for seed in seeds]
            yield f"| {title(row)} | {' | '.join(cells)} |"


def _place(row: str) -> tuple[int, int]:
    """The methods, then the controls that belong to none, then those of a method."""
    method, _, control = row.partition(" ")
    names = [*dict.fromkeys([*LOCALIZED, *AUDITED]), *CONTROLS]
    return (0, names.index(method)) if not control else (1 + [*CONTROLS].index(control), names.index(method))


def difference_lines(differences: pd.DataFrame) -> Iterator[str]:
    """A Markdown table: differences per seed and pooled, and whether the seeds agree."""
    seeds = list(dict.fromkeys(differences["seed"]))
    yield f"| difference | {' | '.join(seeds)} | in all seeds |"
    yield "| :-- |" + " --: |" * len(seeds) + " :-- |"
    keys = ["metric", "row", "against"]
    for (metric, a, b), rows in differences.groupby(keys, sort=False):
        cells = " | ".join(_cell(rows, a, b, seed, signed=True) for seed in seeds)
        of_seeds = rows[rows["seed"] != "pooled"]
        said = verdict(of_seeds) if len(of_seeds) == len([seed for seed in seeds if seed != "pooled"]) else "–"
        yield f"| {WORDS[metric]}: {title(a)} − {title(b)} | {cells} | {said} |"


def verdict(rows: pd.DataFrame) -> str:
    """In how far the seeds agree; `higher` and `lower` where every seed's interval is on that side of 0."""
    if (rows["ci_low"] > 0).all():
        return "higher"
    if (rows["ci_high"] < 0).all():
        return "lower"
    above, below = (rows["value"] > 0).all(), (rows["value"] < 0).all()
    return "same sign, not every interval" if above or below else "no"


def _cell(rows: pd.DataFrame, row: str, against: str, seed: str, *, signed: bool) -> str:
    found = rows[(rows["row"] == row) & (rows["against"] == against) & (rows["seed"] == seed)]
    if found.empty or math.isnan(found["value"].iloc[0]):
        return "–"
    value, low, high = found[["value", "ci_low", "ci_high"]].iloc[0]
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})" if signed else f"{value:.3f} ({low:.3f}–{high:.3f})"


if __name__ == "__main__":
    cli.run(main)
