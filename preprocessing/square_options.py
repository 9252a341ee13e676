"""Options that preProcCheXpert.py and preProcFilms.py share; nothing heavy is imported for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import cli
from cxr.pixels.grey import USAGE

_SIZES = """side of the square copies in pixels: 1024 as published; at 640 a network of 512 px sees the smallest
    training crops (0.61 of the side) enlarged 1.3 times, at 512 1.6 times, and finer detail is lost"""

_GREYS = f"""which stored values are black and white: {USAGE}; range is for films whose bit depth is smaller than their
    container's (12 bit in 16: range 0 4095), percentile for films of unknown range; default: """


def add_square_options(add: Callable[..., argparse.Action], own_grey: str) -> None:
    """Adds the shared options. own_grey: the rule that is taken when none is given, for the help."""
    add("--output", type=cli.path, required=True, help="where the copies go")
    add("--size", type=cli.whole_number(32, 2**16 - 1), default=1024, help=_SIZES)
    add("--grey", nargs="+", metavar="RULE", help=_GREYS + own_grey)
    add("--workers", type=cli.whole_number(0, 1024), default=cli.usable_cores(), help="processes")
    add("--packed", action="store_true", help="one uint8 array per split instead of JPEGs")
    words = "read all packed films and name the damaged; with --packed, mend them"
    add("--verify", action="store_true", help=words)
