"""The films of any manifest -> square grey copies or packed arrays, with the manifest's files beside them.

    python preprocessing/preProcFilms.py --manifest manifests/nih --films ChestX-ray14 --output NIH-512 --size 512

The output is what trainClassification.py and evalClassification.py take as `--data`. DICOM, PNG and TIFF of 8 to 16 bit
and JPEG are read; the grey rule is that of dataset.json unless `--grey` gives another, and is recorded. Killed at any
moment it can be started again and goes on. Films that cannot be read are listed in `preprocessing_errors.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError, place
from cxr.pixels.grey import Grey
from preprocessing.square_options import add_square_options

EXAMPLES = """
python preprocessing/preProcFilms.py --manifest manifests/nih --films ChestX-ray14 --output nih-1024
python preprocessing/preProcFilms.py --manifest manifests/nih --films ChestX-ray14 --output nih-512 --size 512 --packed
python preprocessing/preProcFilms.py --output nih-512 --verify
python preprocessing/preProcFilms.py --manifest demo/data/CheXpert-v1.0 --output demo/films-64 --size 64
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--manifest", type=cli.path, help="folder of films.csv, or another table of films")
    parser.add_argument("--films", type=cli.path, help="folder that the paths start from; the manifest's by default")
    add_square_options(parser.add_argument, "that of dataset.json, else stored")
    args = parser.parse_args(argv)
    wanted = Grey.parse(args.grey) if args.grey else None
    if args.manifest is None and not args.verify:
        parser.error("--manifest DIR is needed, except with --verify alone")
    from preprocessing.squares import Squares, make_squares, verify_squares

    if args.verify and not args.packed:
        return verify_squares(args.output)
    from cxr.manifests.dataset_file import DATASET, REGIONS, read_dataset

    tables = _tables(args.manifest)
    dataset = read_dataset(tables[0])
    own_grey = Grey.from_json(dataset.grey, place(tables[0].with_name(DATASET)))
    squares = Squares(args.output, args.size, args.packed, wanted, own_grey, dataset.name)
    beside = [file for name in (DATASET, REGIONS) if (file := tables[0].with_name(name)).is_file()]
    root = args.films or args.manifest
    pairs = [(table, root) for table in tables]
    return make_squares(pairs, squares, beside=beside, workers=args.workers, mend=args.verify)


def _tables(manifest: Path) -> list[Path]:
    """The tables of a manifest: one of all splits, or one for each split as CheXpert has them."""
    from cxr.manifests.splits import SPLITS, split_table

    tables = dict.fromkeys(split_table(manifest, split) for split in SPLITS)
    found = [table for table in tables if table.is_file()]
    if not found:
        raise InputError(f"--manifest {place(manifest)}: no films.csv in this folder; makeManifest.py writes one")
    return found


if __name__ == "__main__":
    cli.run(main)
