"""A synthetic CheXpert-v1.0 and CheXlocalize in the real formats, every finding with its mask, for demos and tests.

    python preprocessing/makeDemoDataset.py --output demo/data --patients 600 --seed 0

About two films per patient. Killed at any moment it can be started again and goes on with what is missing.
With --pairs also films that are drawn twice, with one finding and without it, in the folder pairs/: a manifest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError

EXAMPLES = """
python preprocessing/makeDemoDataset.py --output demo/other --patients 20 --seed 1
python preprocessing/makeDemoDataset.py --output demo/other --patients 20 --seed 1 --pairs 1
"""

SMALLEST_COHORT = 20
"""With fewer patients the valid and test splits would be next to empty."""
PAIRS = 8
"""Pairs per finding, where no number is given."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("Writes a synthetic CheXpert and CheXlocalize with known lesion masks.", EXAMPLES)
    parser.add_argument("--output", type=cli.path, required=True, help="folder for CheXpert-v1.0/ and CheXlocalize/")
    parser.add_argument("--patients", type=int, default=600, help=f"at least {SMALLEST_COHORT}")
    parser.add_argument("--pairs", type=cli.whole_number(1, 10_000), nargs="?", const=PAIRS, metavar="COUNT",
        help=f"draw pairs/: films with and without one finding, COUNT ({PAIRS}) of each")  # fmt: skip
    parser.add_argument("--workers", type=int, default=cli.usable_cores(), help="processes that draw films")
    cli.add_seed(parser)
    arguments = parser.parse_args(argv)
    if arguments.patients < SMALLEST_COHORT:
        few = f"--patients {arguments.patients}: too few to fill three splits"
        raise InputError(f"{few}; use at least {SMALLEST_COHORT}")
    if arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: use 1 or more")
    from preprocessing.phantom.release import write_release

    print(write_release(arguments.output, arguments.patients, arguments.seed, arguments.workers, arguments.pairs))
    return 0


if __name__ == "__main__":
    cli.run(main)
