"""The second reader of DICOM: dcmtk, in Debian's package of that name. Tests that need it skip without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def by_dcmtk(path: Path, *options: str, folder: Path | None = None) -> np.ndarray | None:
    """(rows, columns) or (rows, columns, 3) in [0, 1], of 8 bit, from dcmtk's renderer; None where it has none."""
    if shutil.which("dcmj2pnm") is None:
        pytest.skip("dcmtk is not installed")
    target = (folder or path.parent) / "dcmtk.pnm"
    target.unlink(missing_ok=True)
    command = ["dcmj2pnm", *options, "--no-overlays", "+op", str(path), str(target)]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    if not target.is_file() or not target.stat().st_size:
        return None
    with Image.open(target) as image:
        return np.asarray(image, dtype=float) / 255
