"""Cost of a stage's record for as many films as CheXpert has: seconds and bytes.

    python -m benchmarks.bench_record --films 223414

Writes the films (a few bytes each), records a stage that read them all and one that wrote a file for each of them, and
asks whether it is complete.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import cli
from benchmarks.measure import Timer, load, machine, report
from cxr.runs.fingerprints import films_fingerprint
from cxr.runs.run_record import RunRecord


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_record")
    parser.add_argument("--films", type=int, default=223_414, help="films read, and files written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_record.csv"), help="result file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        table = pd.DataFrame(measured(Path(folder), args.films))
    summary = {"seconds": round(table["seconds"].sum(), 2), "bytes": int(table["bytes"].iloc[-1])}
    report("bench_record", table, args.out, summary, {"machine": machine(), "load": load()})
    return 0


def measured(folder: Path, count: int) -> list[dict[str, Any]]:
    """One row per step: number of films, step, seconds, bytes of run.json after it."""
    films = [folder / "data" / f"{index // 1000}" / f"patient{index:06d}.jpg" for index in range(count)]
    for film in films:
        film.parent.mkdir(parents=True, exist_ok=True)
        film.write_bytes(film.name.encode())
    results = folder / "results"
    record, rows = RunRecord(results), []

    def step(name: str, function: Callable[[], Any]) -> Any:
        timer = Timer()
        value = function()
        size = (results / "run.json").stat().st_size if (results / "run.json").is_file() else 0
        rows.append({"films": count, "step": name, **timer.seconds(), "bytes": size})
        return value

    inputs = {"films": step("fingerprint of the films", lambda: films_fingerprint(films, folder / "data"))}
    step("stage that read them", lambda: _record(record, "read", inputs, []))
    step("stage that wrote them", lambda: _record(record, "wrote", inputs, films))
    asked = {"inputs": inputs, "options": {}, "outputs": films}
    if not step("still complete?", lambda: RunRecord(results).is_complete("wrote", **asked)):
        raise RuntimeError("the stage is not complete")
    return rows


def _record(record: RunRecord, name: str, inputs: dict[str, Any], outputs: Sequence[Path]) -> None:
    with record.stage(name, inputs=inputs, options={}, outputs=outputs) as stage:
        stage.wrote(*outputs)


if __name__ == "__main__":
    cli.run(main)
