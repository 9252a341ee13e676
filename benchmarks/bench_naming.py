"""Seconds to name the films of a folder, for names that differ, are all alike, and collide with numbered ones.

python -m benchmarks.bench_naming
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import cli
from benchmarks.measure import Timer, load, machine, report
from cxr.film_folder import FilmFile, film_names

FORMS = {
    "CheXpert": "patient{number:06d}/study1/view1_frontal.jpg",
    "all alike": "film.png",
    "numbered": "film-{number}.png",
    "long": "series/{number}/" + "x" * 240 + ".dcm",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_naming")
    parser.add_argument("--films", type=int, nargs="+", default=[10_000, 100_000], help="numbers of films")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_naming.csv"), help="result file")
    args = parser.parse_args(argv)
    facts = {"machine": machine(), "load_before": load()}
    rows = [
        {"names": kind, "films": count} | seconds(form, count) for kind, form in FORMS.items() for count in args.films
    ]
    table = pd.DataFrame(rows)
    report("bench_naming", table, args.out, {"slowest_seconds": round(float(table["seconds"].max()), 3)}, facts)
    return 0


def seconds(form: str, count: int) -> dict[str, float]:
    """Wall and CPU seconds for `count` names of one form, every one of them given twice."""
    films = [FilmFile(Path("films"), form.format(number=number // 2)) for number in range(count)]
    timer = Timer()
    names = film_names(films, anonymous=False)
    measured = timer.seconds()
    if len(set(names)) != count:
        raise RuntimeError(f"{count - len(set(names))} of {count} names are not unique")
    return measured


if __name__ == "__main__":
    cli.run(main)
