"""The two ways to make a map, and why there are two.

`published` repeats the published code bug for bug, so that the paper's tables can be reproduced: the slip in its scaled
maps, fading borders, and a square map stretched over the film's rectangle. `corrected` is the default everywhere else.
"""

from __future__ import annotations

from typing import Literal

Protocol = Literal["published", "corrected"]
PROTOCOLS: tuple[Protocol, ...] = ("published", "corrected")


def check_protocol(protocol: str) -> None:
    """Raises ValueError unless `protocol` is one of the two."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
