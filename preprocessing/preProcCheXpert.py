"""CheXpert -> square grey JPEGs: centred crop, Lanczos, quality 100 without chroma subsampling, the same tree.

    python preprocessing/preProcCheXpert.py --chexpert CheXpert-v1.0 --chexlocalize chexlocalize --output CheXpert-1024

Training and validation films come from CheXpert, also as the official download unpacks (`CheXpert-v1.0 batch 2 (train
1)/...`), test films from CheXlocalize. Killed at any moment it can be started
again and goes on with the films that are missing. Films that cannot be read are listed in `preprocessing_errors.csv`.

With `--packed` the squares go into one uint8 array per split instead, which is read many times faster and takes
size x size bytes per film (CheXpert at 1024: 235 GB, at 640: 92 GB, at 512: 59 GB). A folder of copies may be packed
as well: its films then keep the copies' very pixels.
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
python preprocessing/preProcCheXpert.py --chexpert data/CheXpert-v1.0 --chexlocalize data/CheXlocalize \\
    --output data/CheXpert-1024
python preprocessing/preProcCheXpert.py --chexpert demo/data/CheXpert-v1.0 --chexlocalize demo/data/CheXlocalize \\
    --output demo/data/CheXpert-128 --size 128 --workers 2
python preprocessing/preProcCheXpert.py --chexpert demo/data/CheXpert-256 --output demo/data/CheXpert-packed --packed
python preprocessing/preProcCheXpert.py --output demo/data/CheXpert-packed --verify
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--chexpert", type=cli.path, help="folder with train.csv, valid.csv, train/, valid/")
    parser.add_argument("--chexlocalize", type=cli.path, help="folder with CheXpert/test_labels.csv (the test films)")
    add_square_options(parser.add_argument, "stored")
    args = parser.parse_args(argv)
    wanted = Grey.parse(args.grey) if args.grey else None
    from preprocessing.squares import Squares, make_squares, verify_squares

    if args.verify and not args.packed:
        return verify_squares(args.output)
    tables = _label_files(args.chexpert, args.chexlocalize)
    squares = Squares(args.output, args.size, args.packed, wanted)
    return make_squares(tables, squares, workers=args.workers, mend=args.verify)


def _label_files(chexpert: Path | None, chexlocalize: Path | None) -> list[tuple[Path, Path]]:
    """The label files that are there, each with the folder that its paths start from."""
    from cxr.manifests.splits import table_folders

    tables = []
    if chexpert is not None:
        names = ("train.csv", "train_visualCheXbert.csv", "valid.csv", "test_labels.csv")  # the last in copies only
        found = [file for name in names for folder in table_folders(chexpert) if (file := folder / name).is_file()]
        if not found:
            raise InputError(f"--chexpert {place(chexpert)}: none of {', '.join(names)} is in this folder")
        tables += [(file, chexpert) for file in found]
    if chexlocalize is not None:
        root = chexlocalize / "CheXpert"
        if not (root / "test_labels.csv").is_file():
            raise InputError(f"--chexlocalize {place(chexlocalize)}: no CheXpert/test_labels.csv in this folder")
        tables.append((root / "test_labels.csv", root))
    if not tables:
        raise InputError("nothing to do: give --chexpert, --chexlocalize or both")
    return tables


if __name__ == "__main__":
    cli.run(main)
