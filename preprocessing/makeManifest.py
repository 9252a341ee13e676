"""A data set's own tables -> a manifest: films.csv, dataset.json, and regions.json where there are outlines.

    python preprocessing/makeManifest.py --source nih ChestX-ray14 --output manifests/nih

ROOT is the release's folder with its tables and, below it, its films; the tables alone are enough. Films that lie
elsewhere below ROOT than the release has them are found by name. An official split is kept; where it has no
validation part, that is drawn from the training patients. Without an official split films are split by patient, without
patient ids not at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError
from preprocessing.sources.registry import NAMES, source_of

if TYPE_CHECKING:  # main imports what is heavy after the options are parsed, so that --help answers at once
    from preprocessing.manifests.source import Source

EXAMPLES = """
python preprocessing/makeManifest.py --source nih ChestX-ray14 --output manifests/nih
python preprocessing/makeManifest.py --source vindr vindr-cxr/1.0.0 --votes 2 --output manifests/vindr
python preprocessing/makeManifest.py --source chexlocalize demo/data/CheXlocalize --output demo/manifest
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("root", metavar="ROOT", type=cli.path, help="the release's folder: its tables and its films")
    parser.add_argument("--source", required=True, metavar="NAME", help=f"data set: {', '.join(NAMES)}")
    parser.add_argument("--output", type=cli.path, required=True, help="folder of the manifest")
    parser.add_argument("--votes", type=int, choices=(1, 2, 3), help="vindr: readers who make a label positive (2)")
    parser.add_argument("--only-present", action="store_true", help="leave films out that are not below ROOT")
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    source = source_of(args.source)
    options = _options(args, source)
    from preprocessing.manifests.making import make_manifest

    for line in make_manifest(
        args.source, source, args.root, args.output, options, only_present=args.only_present, seed=args.seed
    ):
        print(line)
    return 0


def _options(args: argparse.Namespace, source: Source) -> dict[str, int]:
    """Options of the source, its own where none are given. Raises InputError for one that the source has no use for."""
    given = {} if args.votes is None else {"votes": args.votes}
    for name in given.keys() - source.options.keys():
        raise InputError(f"--{name} {given[name]}: {source.title} has no use for it")
    return {**source.options, **given}


if __name__ == "__main__":
    cli.run(main)
