"""How weights are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr.files import InputError
from models.checkpoint import load_model


def refused(path: Path, patch_size: int | None = None) -> str:
    """The one line that loading is refused with."""
    with pytest.raises(InputError) as told:
        load_model(path, patch_size=patch_size)
    assert "\n" not in str(told.value)
    return str(told.value)
