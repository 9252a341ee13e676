"""The tables of docs/performance.md and the README's sentences, from the CSV files in benchmarks/results.

    python -m benchmarks.tables > /tmp/tables.md

A test compares the pages with what this prints. Seconds and bytes have three digits, ratios two, other errors two;
ranges are those of the rows that a line stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor, log10
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).resolve().parent / "results"
NOISE = 1.15
"""Largest exponent of the seconds over the units that `bench_chain` takes as linear."""
PLURALS = {"film and method": "films x methods", "patch": "patches"}
NOT_MEASURED = "not measured"


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


def rounded(value: float, digits: int) -> str:
    """`digits` significant digits, thousands with commas; 0 as 0."""
    if value == 0:
        return "0"
    places = digits - 1 - floor(log10(abs(value)))
    value = round(value, places)
    places = digits - 1 - floor(log10(abs(value)))  # 0.996 to two digits is 1.0
    return f"{value:,.{max(places, 0)}f}"


def span(values: pd.Series | Sequence[float], digits: int) -> str:
    """The least and the largest value, or one where both are written alike."""
    low, high = (rounded(value, digits) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table; the first `left` columns are text."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], f"|{'|'.join(rule)}|", *lines[1:]]


def paired(table: pd.DataFrame, way: str = "way") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the published way and of ours."""
    published = table[way].str.startswith("published")
    return table[published], table[~published]


# ---------------------------------------------------------------------------------------------- the published way, ours


def against_published() -> list[str]:
    head = ("CPU seconds", "published way", "here", "ratio", "threads, processor, load", "`python -m`")
    rows = [*map_rows(), *cam_rows(), *threshold_rows(), *loader_rows(), *step_rows(), bootstrap_row()]
    return markdown(head, [[*row[:-1], where(row[-1]), f"`benchmarks.{row[-1]}`"] for row in rows])


def where(name: str) -> str:
    """Threads, processor and load before a benchmark; threads that it does not record are all cores."""
    first = read(name).iloc[0]
    threads = int(first.get("threads", 1 if name == "bench_bootstrap" else first["machine"].split("-")[0]))
    processor = "Xeon" if "Xeon" in first["machine"] else "EPYC"
    return f"{threads}, {processor}, {first['load_before']:.0f}"


def map_rows() -> list[list[str]]:
    """The published code itself, then its imitation."""
    original = read("bench_original")
    names = {"efficientnet_b0": "B0", "efficientnet_v2_s": "V2-S"}
    rows = []
    for backbone, name in names.items():
        of_backbone = original[original["backbone"] == backbone].set_index("way")
        published = of_backbone.loc["published", "cpu_seconds"]
        for way in ("64 steps per patch", "every 3 px", "every 5 px"):
            ours = of_backbone.loc[way]
            what = f"raw and scaled maps of a film, {name}, 64 steps; here {way.removesuffix(' per patch')}"
            rows.append([what, *cells(published, ours["cpu_seconds"], ours["ratio"]), "bench_original"])
    steps = read("bench_saliency").query("what.str.startswith('raw and scaled')")
    published, ours = paired(steps)
    what = f"the same, B0, {steps['what'].iloc[0].split(', ')[1]}, published way written anew"
    numbers = cells(published["cpu_seconds"].iloc[0], ours["cpu_seconds"].iloc[0], ours["cpu_ratio"].iloc[0])
    return [*rows, [what, *numbers, "bench_saliency"]]


def cells(published: float, ours: float, ratio: float) -> list[str]:
    return [rounded(published, 3), rounded(ours, 3), rounded(ratio, 2)]


def cam_rows() -> list[list[str]]:
    table = read("bench_saliency").query("what == 'three class activation maps'")
    rows = []
    for backbone, name in (("efficientnet_b0", "B0"), ("efficientnet_v2_s", "V2-S")):
        published, ours = paired(table[table["backbone"] == backbone])
        how = published["how"].iloc[0]
        numbers = cells(published["cpu_seconds"].iloc[0], ours["cpu_seconds"].iloc[0], ours["cpu_ratio"].iloc[0])
        rows.append([f"three CAMs of 14 labels, {name} ({how})", *numbers, "bench_saliency"])
    return rows


def threshold_rows() -> list[list[str]]:
    """Either film size, either counting; per map, over the cases."""
    rows = []
    for (film, true_pos), of_size in read("bench_thresholds").groupby(["film", "true_pos_only"], sort=False):
        published, ours = (part["cpu_seconds"] / part["maps"] for part in paired(of_size))
        ratio = of_size["cpu_ratio"].dropna()
        counting = "true positives" if true_pos else "all cases"
        what = f"heat-map threshold, per map, films of {film.replace('x', ' x ')}, {counting}"
        rows.append([what, span(published, 3), span(ours, 3), span(ratio, 2), "bench_thresholds"])
    return rows


def loader_rows() -> list[list[str]]:
    table = read("bench_train").query("what == 'loader, one core'")
    published, ours = paired(table)
    seconds = published["cpu_ms_per_film"].iloc[0] / 1000
    what, command = "reading a film to train on, 1024 px JPEG; here", "bench_train"
    return [
        [f"{what} {row.films}", *cells(seconds, row.cpu_ms_per_film / 1000, row.cpu_ratio), command]
        for row in ours.itertuples()
    ]


def step_rows() -> list[list[str]]:
    """Both loops as they are, and both compiled."""
    published, ours = paired(read("bench_train").query("what == 'network'"))
    rows = []
    for words in ("uncompiled", "compiled"):
        theirs, here = (part[(part["mode"] == "compiled") == (words == "compiled")] for part in (published, ours))
        for batch, seconds in theirs.groupby("batch")["cpu_ms_per_film"].min().items():
            least = here.loc[here["batch"] == batch, "cpu_ms_per_film"].min() / 1000
            what = f"a training step, B0, per film of {batch}, float32, {words}"
            rows.append([what, *cells(seconds / 1000, least, seconds / 1000 / least), "bench_train"])
    return rows


def bootstrap_row() -> list[str]:
    table = read("bench_bootstrap").set_index("what")
    published, ours = (table.loc[what, "cpu_seconds"] for what in ("published, all", "ours, the whole table"))
    how = table["how"].loc["published, auroc -"]
    what = f"100,000 bootstrap resamples, 14 labels ({how} per metric)"
    return [what, *cells(published, ours, published / ours), "bench_bootstrap"]


# --------------------------------------------------------------------------------------------------------- the chain


def chain() -> list[str]:
    head = (
        "stage",
        "units",
        "CPU hours, one core",
        "hours, GPU",
        "GB written",
        "peak MiB",
        "memory",
        "time grows with size as",
    )
    table = read("bench_chain")
    rows = [
        [
            row["stage"],
            f"{row['units']:,.0f} {PLURALS.get(row['unit'], row['unit'] + 's')}",
            rounded(row["cpu_hours"], 2),
            NOT_MEASURED,
            rounded(row["gb"], 2) if row["gb"] else "",
            rounded(row["peak_mib"], 3),
            growth(row["mib_per_1000_units"]),
            "" if pd.isna(row["size_exponent"]) else f"side^{row['size_exponent']:.1f}",
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    return markdown(head, rows, left=2)


def growth(mib_per_1000: float) -> str:
    return f"+{rounded(mib_per_1000, 2)} MiB per 1,000" if mib_per_1000 else "constant"


def chain_sentences() -> list[str]:
    """Three for the README."""
    table = read("bench_chain").set_index("stage")
    hours = table["cpu_hours"]
    training = next(name for name in table.index if name.startswith("training"))
    steps, stride = hours["evidence, 64 steps"], hours["evidence, every 3 px"]
    others = hours.drop([training, "evidence, 64 steps", "evidence, every 3 px"])
    worse = table.index[table["growth_exponent"] > NOISE]
    growing = ", ".join(worse) if len(worse) else "none"
    reading = [name for name in others.index if name.startswith("reading")]
    peak = table["peak_mib"].max() / 1024
    return [
        f"Training takes {rounded(hours[training] / 24, 2)} CPU days per network, evidence of the 902 films "
        f"{rounded(steps, 2)} CPU hours at 64 steps and {rounded(stride, 2)} at every 3 px.",
        f"All other stages together take {rounded(others.sum(), 2)} CPU hours, of which reading while training "
        f"{rounded(hours[reading].sum(), 2)}.",
        f"No stage needs more than {rounded(peak, 2)} GiB of memory. Worse than linearly in the number of films grows: "
        f"{growing}.",
    ]


# ------------------------------------------------------------------------------------------------------------ others


def steps() -> list[str]:
    head = ("steps per patch", "patches", "mean error", "largest error", "maximum moves by", "CPU seconds")
    rows = [
        [
            f"{row.steps}",
            f"{row.patches:,}",
            percent(row.mean_error_percent),
            percent(row.max_error_percent),
            f"{rounded(row.peak_moved_px, 2)} px" if row.peak_moved_px else "0",
            rounded(row.cpu_seconds, 2),
        ]
        for row in read("bench_steps").itertuples()
    ]
    return markdown(head, rows, left=0)


def percent(value: float) -> str:
    return f"{rounded(value, 2)}%" if value else "0"


def memory() -> list[str]:
    """A sentence on the memory of maps."""
    table = read("bench_saliency").dropna(subset="peak_mib")
    published = table["what"].str.startswith("published")
    most, ours = table.loc[published, "peak_mib"].iloc[0], table.loc[~published, "peak_mib"]
    return [
        f"A published batch of 4 shifts takes {rounded(most, 4)} MiB on top of the network, the evidence grid of 64 "
        f"steps and its maps {span(ours, 2)} MiB."
    ]


def records() -> list[str]:
    """Names, records, the report: of which only seconds are known, and memory of the last."""
    recorded, names = read("bench_record"), read("bench_naming").query("films == 100000").set_index("names")
    wrote = recorded.set_index("step").loc["stage that wrote them"]
    build = read("bench_report").set_index("what").loc["build"]
    named = names["cpu_seconds"]
    return [
        f"Naming 100,000 films takes {rounded(named['CheXpert'], 2)} CPU seconds, {rounded(named['long'], 2)} where "
        "all names are too long.",
        f"The record of a stage that wrote {wrote['films']:,} files takes {rounded(wrote['cpu_seconds'], 2)} CPU "
        "seconds.",
        f"The report of {build['films']} films takes {rounded(build['cpu_seconds'], 2)} CPU seconds and "
        f"{rounded(build['peak_rss_mib'], 3)} MiB.",
    ]


def slowest_tests() -> list[str]:
    """The 20 slowest of a whole run."""
    rows = [[f"`{row.file}`, {row.test}", rounded(row.seconds, 2)] for row in read("slowest_tests").itertuples()]
    return markdown(("test", "seconds"), rows)


def suite() -> list[str]:
    """How long the run took from which the slowest tests are."""
    table = read("slowest_tests")
    return [
        f"The run took {rounded(table['whole_suite_seconds'].iloc[0], 3)} s beside {table['load'].iloc[0]} other "
        "processes on two cores."
    ]


TABLES: Mapping[str, Callable[[], list[str]]] = {
    "against the published way": against_published,
    "the chain": chain,
    "fineness": steps,
    "tests": slowest_tests,
}
SENTENCES: Mapping[str, Callable[[], list[str]]] = {
    "memory": memory,
    "records": records,
    "suite": suite,
    "chain": chain_sentences,
}


def main() -> None:
    for name, made in (*TABLES.items(), *SENTENCES.items()):
        print(f"## {name}\n")
        print("\n".join(made()), end="\n\n")


if __name__ == "__main__":
    main()
