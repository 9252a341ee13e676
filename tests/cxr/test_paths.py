"""Which patient a film belongs to."""

import pytest

from cxr.paths import patient_of


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "patient64541"),
        ("test/patient64741/study1/view1_frontal.jpg", "patient64741"),
        ("patient7_study1_view1_frontal.png", "patient7"),
        ("mine/0001.png", ""),
        ("inpatient12/0001.png", ""),
    ],
)
def test_patient_of_a_film(path, patient):
    assert patient_of(path) == patient
