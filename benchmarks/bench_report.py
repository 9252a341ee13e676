"""The report of a large test set: seconds and memory to build it, and seconds until the browser has opened the page.

    python -m benchmarks.bench_report
    python -m benchmarks.bench_report --films 60 --out /tmp/quick.csv

Simulated results of both models with evidence files and masks of every film, at the published sizes (films of 512
pixels, 64-pixel patches) and, to be written quickly, with 8 shifts per axis instead of 64. Building is timed as the
command a user types, with all tables and figures. Opening ends when the first case is drawn; the browser is running.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import cli
from benchmarks.measure import load, machine, report
from tests.reporting.browser import drawn, open_page, running_chromium
from tests.reporting.case_files import write_case_files
from tests.reporting.result_files import write_results


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_report")
    parser.add_argument("--films", type=int, default=900, help="test films, each with 14 labels")
    parser.add_argument("--repeats", type=int, default=5, help="times the page is opened; the slowest is told")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_report.csv"), help="result file")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as root:
        folder = write_results(Path(root) / "results", films=args.films)
        masks = write_case_files(folder, image_size=512, patch_size=64, steps_per_patch=8)
        before = load()
        built = build(folder, masks) | {"load_before": before}
        page = folder / "report" / "report.html"
        facts = {
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "films": args.films,
            "films_with_pictures": page.read_text(encoding="utf-8").count('id="film-'),
            "machine": machine(),
        }
        before = load()
        opened = open_times(page, args.repeats)
    table = pd.DataFrame(
        [
            {"what": "build", **built},
            {"what": f"open, slowest of {args.repeats}", "seconds": max(opened), "load_before": before},
        ]
    )
    summary = {name: round(value, 2) for name, value in built.items()} | {"open_seconds": opened}
    report("bench_report", table, args.out, summary, facts)
    return 0


def build(folder: Path, masks: Path) -> dict[str, float]:
    """Wall and CPU seconds of the command, and the peak memory of its process in MiB."""
    start = time.perf_counter()
    command = [sys.executable, "makeReport.py", str(folder), "--gt-path", str(masks)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_mib": used.ru_maxrss / 1024}


def open_times(page: Path, repeats: int) -> list[float]:
    """Seconds from asking for the page until its first case is drawn, each time in a new tab without a cache."""
    times: list[float] = []
    with running_chromium() as browser:
        for _ in range(repeats):
            start = time.perf_counter()
            tab, complaints = open_page(browser, page)
            drawn(tab)
            times.append(round(time.perf_counter() - start, 2))
            if complaints:
                raise RuntimeError(f"the page complains: {complaints}")
            tab.close()
    return times


if __name__ == "__main__":
    cli.run(main)
