"""Files of the audit, one npz per film: `facts` (json text) and float32 arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.files import InputError, place, printable, replacing
from saliency.evidence.npz import read_arrays

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_FACTS = "facts"


def write_film_arrays(path: Path, facts: DataclassInstance, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one film's file, atomically."""
    content: dict[str, Any] = {_FACTS: np.array(json.dumps(asdict(facts)))}
    content |= {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **content)


@contextmanager
def film_arrays(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """The facts and arrays of a file, for a block that checks them.

    Raises InputError in one line when the file is missing or damaged, or when the block finds something else in it.
    """
    arrays = read_arrays(path)
    try:
        yield json.loads(str(arrays.pop(_FACTS))), arrays
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        line = printable(str(error).partition("\n")[0][:200])
        raise InputError(f"{place(path)}: not a file of this audit ({line}); delete it and run again") from None
