"""Which patient a film belongs to, from its path."""

from __future__ import annotations

import re

_PATIENT = re.compile(r"(?<![A-Za-z])patient\d+")


def patient_of(path: str) -> str | None:
    """`patient64541` of `CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg`; None where a path names nobody."""
    found = _PATIENT.search(path)
    return None if found is None else found.group()
