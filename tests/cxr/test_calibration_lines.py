import json

import numpy as np
import pytest

from cxr.calibration_lines import LOGIT_LIMIT, Calibration, Line, logit, read_calibration, write_calibration
from cxr.files import InputError


def test_calibrated_contributions_sum_to_the_calibrated_logit_and_keep_their_shares():
    rng = np.random.default_rng(0)
    contributions = rng.normal(size=(5, 64))  # films, patches
    line = Line(0.7, -1.3)
    found = line.contributions(contributions, 64)
    np.testing.assert_allclose(found.sum(axis=1), line.logits(contributions.sum(axis=1)), rtol=1e-12)
    reference = rng.normal(size=64)  # a film to compare with: a patch's share of the difference stays
    gaps, calibrated_gaps = contributions - reference, found - line.contributions(reference, 64)
    shares = [gap / gap.sum(axis=1, keepdims=True) for gap in (gaps, calibrated_gaps)]
    np.testing.assert_allclose(*shares, rtol=1e-9)


def test_probabilities_by_hand():
    assert Line(1, 0).probabilities(np.array([0.1, 0.5])) == pytest.approx([0.1, 0.5])
    assert Line(2, 0).probabilities(np.array([0.8])) == pytest.approx([16 / 17])  # odds 4 squared
    assert Line(0, np.log(3)).probabilities(np.array([0.0, 1.0])) == pytest.approx([0.75, 0.75])


def test_logits_of_certain_probabilities_are_finite():
    found = logit(np.array([0.0, 1e-30, 0.5, 0.999999999, 1.0]))
    assert found.tolist() == pytest.approx([-LOGIT_LIMIT, -LOGIT_LIMIT, 0, np.log(0.999999999 / 1e-9), LOGIT_LIMIT])
    assert LOGIT_LIMIT == pytest.approx(21.4, abs=0.05)


def test_round_trip(tmp_path):
    path = tmp_path / "calibration.json"
    written = Calibration({"Edema": Line(0.1 + 0.2, -1 / 3), "Mass": None}, {"Mass": "no positives in validation"})
    write_calibration(path, written)
    found = read_calibration(path)
    assert (found.lines, found.reasons) == (written.lines, written.reasons)
    assert list(read_calibration(path, ["Mass"]).lines) == ["Mass"]
    with pytest.raises(InputError, match="Fracture: expected"):
        read_calibration(path, ["Fracture"])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"slope": 1.0}, "Edema: expected"),
        (3, "Edema: expected"),
        ({"slope": "1", "intercept": 0}, "'1' is not a finite number"),
        ({"slope": True, "intercept": 0}, "True is not a finite number"),
        ({"slope": 1.0, "intercept": None}, "None is not a finite number"),
    ],
)
def test_bad_entries_are_refused_with_file_and_label(tmp_path, entry, says):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"Edema": entry}))
    with pytest.raises(InputError, match=says) as error:
        read_calibration(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
