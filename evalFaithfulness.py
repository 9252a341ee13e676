"""Audits heat maps: do they say what the network does, and where the findings are? From results folders, resumable.

Per film and label: what filling each patch does to the logit (in closed form for a patch network), and how well every
method's map says it; deletion and insertion curves; evidence inside the masks, in the border and outside the body.
Only a whole-film baseline needs forward passes of films; its curves those of --curve-films films, with a finding or
an outline. With --pairs, films drawn with and without one finding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import quoted, sha256
from cxr.names import AUDITED, faithfulness_folder

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    from cxr.runs.run_record import RunRecord
    from evaluation.localizing.outlined_films import OutlinedFilms
    from models.recorded_network import RecordedNetwork
    from saliency.audit.audit_maps import AuditSource
    from saliency.audit.effects import FilmPasses

EXAMPLES = """
python evalFaithfulness.py demo/results/MedicalPatchNet --chexlocalize demo/data/CheXlocalize --pairs demo/data/pairs
python evalFaithfulness.py demo/results/EfficientNetB0 --chexlocalize demo/data/CheXlocalize --curve-films 1
python evalFaithfulness.py demo/results/MedicalPatchNet --weights demo/savedModels/MedicalPatchNet --fills 0.5
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.folder_lock import locked
    from models.recorded_network import open_networks, patches_per_axis

    device = cli.pick_device(args.device)
    networks = open_networks(args.results, args.weights, device)
    side = patches_per_axis(networks)
    outlined = _outlined(args.chexlocalize)
    reading = {"root": args.chexlocalize, "data": args.data, "batch_size": args.batch_size}
    drawing = {"resamples": args.resamples, "seed": args.seed, "unit": args.resample_unit}
    curves = {"number": args.curve_films, "seed": args.seed}
    for network in networks:
        with locked(network.folder):
            source = _effects(network, side, args.fills, outlined, curves, **reading)
            _audit(network, source, outlined, args.fills, drawing, args.workers)
            if args.pairs is not None:
                _pairs(network, args.pairs, args.data, args.batch_size, drawing)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("results", type=cli.path, nargs="+", help="as evalClassification.py makes them, with heat maps")
    parser.add_argument(
        "--weights",
        type=cli.weights,
        nargs="+",
        default=[],
        help="of the folders' networks, told apart by their content; else where the folders say they were",
    )
    parser.add_argument(
        "--chexlocalize", type=cli.existing_folder, help="full-size films and outlines, as for the heat maps"
    )
    parser.add_argument(
        "--data", type=cli.existing_folder, help="the square copies, which say how full-size films are read"
    )
    parser.add_argument("--pairs", type=cli.existing_folder, metavar="DIR", help="pairs/ of makeDemoDataset.py --pairs")
    parser.add_argument(
        "--fills", type=_fill, nargs="+", default=["black", "mean"], help="black, mean, or grey values from 0 to 1"
    )
    parser.add_argument(
        "--curve-films",
        type=cli.whole_number(0, 10**6),
        default=20,
        metavar="N",
        help="films whose deletion and insertion curves take forward passes, of networks that need them: some 30 per "
        "map, finding and fill; drawn by hash of (seed, film)",
    )
    parser.add_argument("--resamples", type=cli.whole_number(1, 10**8), default=1000, help="bootstrap resamples")
    parser.add_argument("--resample-unit", choices=("film", "patient"), default="film", help="what a resample draws")
    parser.add_argument("--batch-size", type=cli.whole_number(1, 2**16), default=16, help="films per forward pass")
    parser.add_argument("--workers", type=cli.whole_number(0, 1024), default=cli.usable_cores(), help="processes")
    cli.add_device(parser)
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    args.fills = list(dict.fromkeys(args.fills))
    return args


def _fill(text: str) -> str:
    """Type of an option: the name of a fill, or a grey value in one spelling."""
    return text if text in ("black", "mean") else f"{cli.number(0, 1)(text):g}"


# --------------------------------------------------------------------------------------------------- occlusion effects


def _outlined(root: Path | None) -> OutlinedFilms | None:
    """Masks of the test films; None, and a line, where there are none."""
    from cxr.manifests.dataset_file import REGIONS
    from evaluation.localizing.outlined_films import read_outlined_films

    if root is None or not ((root / "CheXlocalize").is_dir() or (root / REGIONS).is_file()):
        print("no outlines of findings: nothing is said about masks (--chexlocalize names them)")
        return None
    return read_outlined_films(root, "test")


def _effects(
    network: RecordedNetwork,
    side: int,
    fills: Sequence[str],
    outlined: OutlinedFilms | None,
    curves: Mapping[str, int],
    *,
    root: Path | None,
    data: Path | None,
    batch_size: int,
) -> AuditSource:
    """The maps of a folder together with occlusion effects: in closed form, by forward passes, or none."""
    from saliency.audit.audit_maps import AuditSource, ClosedForm
    from saliency.audit.effects import FilmPasses, fill_logits_of, place_lines

    for stage, what in (("heat_maps_test", "heat maps of test"), ("reference", "reference of relative maps")):
        network.record.require_whole(stage, what, "run evalClassification.py again")
    shared: dict[str, Any] = {
        "side": network.patches_per_axis if network.has_patches else side,
        "image_size": network.facts["image_size"],
        "tasks": list(network.outputs),
    }
    plain = AuditSource(network.folder, **shared)
    model = network.model
    if plain.has_grids and network.is_linear:
        if model is None:
            print(f"{network.folder}: patches are not filled, their evidence is taken away; {network.absent}")
        logits = {} if model is None else fill_logits_of(plain, network.record, model, fills, network.outputs)
        lines = place_lines(model, plain.side, {task: network.outputs[task] for task in plain.tasks})
        return AuditSource(network.folder, **shared, closed_form=ClosedForm(lines, logits))
    if plain.has_grids:
        print(f"{network.folder}: no closed form of its effects: it aggregates with {quoted(network.aggregation)}")
    if model is None or root is None:
        missing = network.absent or "--chexlocalize is not given"
        print(f"{network.folder}: no effects of occlusion: they need forward passes of the films; {missing}")
        return plain
    passes = FilmPasses(plain, network.record, model, network.label_set, root, data, batch_size)
    for split in ("val", "test"):
        passes.make(split, fills if split == "test" else ())
    return _with_curves(AuditSource(network.folder, **shared, forward=True), passes, fills, outlined, **curves)


def _with_curves(
    source: AuditSource,
    passes: FilmPasses,
    fills: Sequence[str],
    outlined: OutlinedFilms | None,
    *,
    number: int,
    seed: int,
) -> AuditSource:
    """The same with deletion and insertion curves by forward passes of `number` films that have or show a finding."""
    from evaluation.audit.faithfulness import by_map
    from film_audit import asked_tasks
    from saliency.audit.curve_passes import CurvePasses, drawn_films

    asked = {film_id: asked_tasks(source, outlined, film_id) for film_id in source.film_ids}
    drawn = drawn_films([film_id for film_id, tasks in asked.items() if tasks], number, seed)
    pairs = {film_id: asked[film_id] for film_id in drawn}
    chosen_by = None if outlined is None else outlined.fingerprint
    CurvePasses(passes, source, pairs, chosen_by, by_map).make(fills, seed)
    return source.with_curves(drawn)


# --------------------------------------------------------------------------------------------------- the audit's tables


def _audit(
    network: RecordedNetwork,
    source: AuditSource,
    outlined: OutlinedFilms | None,
    fills: Sequence[str],
    drawing: Mapping[str, Any],
    workers: int,
) -> None:
    """`faithfulness_test.csv`, `curves_test.csv` and `films_test.csv`, unless they are complete."""
    from cxr.tables import write_csv
    from evaluation.audit.faithfulness_tables import CurveMeans, film_resampling, summary_table, with_grid_pointing
    from film_audit import scored_films
    from saliency.audit.effects import audit_inputs

    target = faithfulness_folder(network.folder)
    files = [target / f"{name}_test.csv" for name in ("faithfulness", "curves", "films")]
    effects = {name: network.record.outputs_fingerprint(f"faithfulness {name}") for name in _EFFECT_STAGES}
    made_from: dict[str, Any] = {
        "inputs": audit_inputs(network.record, source)
        | {"effects": effects, "outlines": None if outlined is None else outlined.fingerprint},
        "options": {"fills": list(fills), "methods": source.methods, **drawing, "curves": sorted(source.curve_films)},
        "outputs": files,
    }
    if network.record.is_complete("faithfulness", **made_from):
        print(f"{target}: complete")
        return
    rows, curves, evidence = [], CurveMeans(), {}
    for film_id, (found, of_film) in scored_films(source, network.label_set, outlined, workers):
        rows += found.rows
        curves.add(found.curves)
        for key, value in of_film.items():
            evidence.setdefault(key, {})[film_id] = value
    per_film = with_grid_pointing(rows, evidence, drawing["seed"])
    labels = [network.label_set.label_of(task) for task in source.tasks]
    units = film_resampling(network.folder, source.film_ids, outlined, **drawing)
    with network.record.stage("faithfulness", **made_from) as stage:
        table = summary_table(per_film, source.methods, labels, units, _undefined(network, source))
        for path, content in zip(files, (table, curves.table(), per_film.assign(note="")), strict=True):
            write_csv(path, content)
        stage.wrote(*files)
    _print_summary(network, source, table)


_EFFECT_STAGES = ("fills", "films val", "films test", "curves")


def _undefined(network: RecordedNetwork, source: AuditSource) -> dict[str, str]:
    """Measure -> why this network has none."""
    if source.closed_form is not None:
        return {}
    whose = f"of aggregation {quoted(network.aggregation)}" if network.has_patches else "of a whole-film network"
    linear = f"that {whose} is not linear in the patches"
    reasons = dict.fromkeys(
        ("deletion", "insertion"),
        f"needs the best order, which is known only of a logit that is linear in the patches: {linear}; what "
        "an order gains over chance, in logits, is in deletion_gain and insertion_gain",
    )
    reasons["gridpg"] = (
        f"needs evidence of patches that stays the same in a grid of films: {linear}, and forward passes of grids are "
        "not made"
    )
    missing = "needs curves of forward passes (the films, the weights, and --curve-films above 0)"
    return reasons | ({} if source.curve_films else dict.fromkeys(("deletion_gain", "insertion_gain"), missing))


def _print_summary(network: RecordedNetwork, source: AuditSource, table: Any) -> None:
    for line in source.lines:
        print(line)
    means = table[(table["label"] == "Mean") & (table["metric"] == "correlation")]
    for fill, rows in means.groupby("fill", sort=False):
        values = ", ".join(
            f"{row['method']} {row['value']:.3f}" for _, row in rows.iterrows() if row["method"] in AUDITED
        )
        print(f"{network.folder}: rank correlation with the effect of occlusion ({fill}): {values}")


# ----------------------------------------------------------------------------------------------------- the causal test


def _pairs(
    network: RecordedNetwork, folder: Path, data: Path | None, batch_size: int, drawing: Mapping[str, Any]
) -> None:
    """`pairs.csv` and `pair_films.csv`: what one finding changes, unless they are complete."""
    from cxr.runs.fingerprints import films_fingerprint
    from cxr.tables import write_csv
    from evaluation.audit.causal_pairs import pair_table
    from film_audit import scored_pairs
    from saliency.audit.pair_maps import TABLE, read_pairs

    model = network.model
    if model is None:
        print(f"{network.folder}: no causal test: it needs forward passes; {network.absent}")
        return
    films, pairs = read_pairs(folder, network.label_set)
    outlined = _outlined(folder)
    target = faithfulness_folder(network.folder)
    files = [target / "pairs.csv", target / "pair_films.csv"]
    content = network.record.content
    read = {"table": sha256(folder / TABLE), "films": films_fingerprint(films.files, folder)}
    network_facts = {"weights_sha256": content["weights"]["sha256"], "model": content["model"]}
    steps = _steps(network.record)
    options = {name: drawing[name] for name in ("resamples", "seed")}
    made_from: dict[str, Any] = {
        "inputs": network_facts | read | {"outlines": outlined and outlined.fingerprint},
        "options": options | {"steps_per_patch": steps},
        "outputs": files,
    }
    if network.record.is_complete("faithfulness pairs", **made_from):
        print(f"{target}: causal test complete")
        return
    with network.record.stage("faithfulness pairs", **made_from) as stage:
        reading = {"steps_per_patch": steps, "data": data, "batch_size": batch_size}
        rows = scored_pairs(model, folder, films, pairs, outlined, reading)
        table = pair_table(rows, **options)
        write_csv(files[0], table)
        write_csv(files[1], rows.assign(note=""))
        stage.wrote(*files)
    for _, row in table[(table["label"] == "Mean") & (table["metric"] == "agreement")].iterrows():
        print(
            f"{network.folder}: {row['method']} in the mask changes with the logit, rank correlation {row['value']:.3f}"
        )


def _steps(record: RunRecord) -> int:
    """Steps per patch of the folder's heat maps."""
    stage = record.content.get("stages", {}).get("heat_maps_test", {})
    steps = stage.get("options", {}).get("steps_per_patch", 1)
    return steps if type(steps) is int and steps > 0 else 1


if __name__ == "__main__":
    cli.run(main)
