import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from cxr.labels import CHEXPERT, LabelSet
from cxr.predictions import Predictions, read_predictions, write_predictions


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    paths = tuple(f"CheXpert-v1.0/valid/patient{64541 + i}/study1/view1_frontal.jpg" for i in range(5))
    return Predictions(paths, rng.random((5, 14)), rng.integers(0, 2, (5, 14)).astype(float), CHEXPERT)


@pytest.fixture
def table(predictions, tmp_path):
    """The file of `predictions` as strings, for a test to damage."""
    write_predictions(tmp_path / "good.csv", predictions)
    return pd.read_csv(tmp_path / "good.csv", dtype=str)


def test_round_trip_keeps_nine_significant_digits(predictions, tmp_path):
    tiny = predictions.probabilities.copy()
    tiny[0, :3] = 1.23456789123e-7, 0.0, 1.0
    predictions = Predictions(predictions.paths, tiny, predictions.labels, CHEXPERT)
    write_predictions(tmp_path / "one.csv", predictions)
    again = read_predictions(tmp_path / "one.csv")
    assert again.paths == predictions.paths and again.names == CHEXPERT.names
    np.testing.assert_allclose(again.probabilities, predictions.probabilities, rtol=5e-9, atol=0)
    assert again.probabilities[0, 0] == 1.23456789e-7
    np.testing.assert_array_equal(again.labels, predictions.labels)
    assert again.labels.dtype == np.float64 and again.probabilities.dtype == np.float64


def test_what_was_read_is_written_and_read_unchanged(predictions, tmp_path):
    write_predictions(tmp_path / "one.csv", predictions)
    once = read_predictions(tmp_path / "one.csv")
    write_predictions(tmp_path / "two.csv", once)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    np.testing.assert_array_equal(read_predictions(tmp_path / "two.csv").probabilities, once.probabilities)


def test_file_format(predictions, tmp_path):
    write_predictions(tmp_path / "one.csv", predictions)
    header, first, *_ = (tmp_path / "one.csv").read_text().splitlines()
    assert header.split(",") == [
        "Path",
        *(f"prob {name}" for name in CHEXPERT.names),
        *(f"label {name}" for name in CHEXPERT.names),
    ]
    assert first.split(",")[1] == f"{predictions.probabilities[0, 0]:.9g}"
    assert first.split(",")[15] == str(int(predictions.labels[0, 0]))


def test_columns_are_matched_by_name(predictions, table, tmp_path):
    shuffled = table[list(reversed(table.columns))].assign(reader="me")
    shuffled["label Edema"] = [f"{int(value)}.0" for value in shuffled["label Edema"]]
    shuffled.to_csv(tmp_path / "shuffled.csv", index=False)
    read = read_predictions(tmp_path / "shuffled.csv")
    np.testing.assert_allclose(read.probabilities, predictions.probabilities, rtol=5e-9)
    np.testing.assert_array_equal(read.labels, predictions.labels)


@pytest.mark.parametrize(
    ("column", "text", "says"),
    [
        ("prob Edema", "1.5", "[0, 1]"),
        ("prob Edema", "-0.1", "[0, 1]"),
        ("prob Edema", "nan", "fill in a number"),
        ("prob Edema", "inf", "[0, 1]"),
        ("prob Edema", "", "blank"),
        ("prob Edema", "high", "not a number"),
        ("prob Edema", "0_1", "not a number"),
        ("label Fracture", "-1", "0, 1 or blank"),
        ("label Fracture", "2", "0, 1 or blank"),
        ("label Fracture", "0.5", "0, 1 or blank"),
        ("label Fracture", "nan", "fill in a number"),
        ("label Fracture", "yes", "not a number"),
        ("Path", " ", "blank"),
    ],
)
def test_a_bad_value_is_told_with_file_line_and_column(table, tmp_path, column, text, says):
    table.loc[2, column] = text
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / "bad.csv")
    message = str(error.value)
    assert all(part in message for part in ("bad.csv, ", "line 4, ", f"{column}: ", says)) and "\n" not in message


def test_a_film_without_a_label_keeps_its_blank(predictions, tmp_path):
    labels = predictions.labels.copy()
    labels[2, 5] = np.nan
    write_predictions(tmp_path / "one.csv", Predictions(predictions.paths, predictions.probabilities, labels, CHEXPERT))
    np.testing.assert_array_equal(read_predictions(tmp_path / "one.csv").labels, labels)
    assert (tmp_path / "one.csv").read_text().splitlines()[3].split(",")[15 + 5] == ""


def test_three_labels_and_film_ids_of_their_own(tmp_path):
    labels = LabelSet(("ICU", "AP", "male"), {"places": ("ICU",)})
    rng = np.random.default_rng(0)
    values = rng.random((4, 3)), rng.integers(0, 2, (4, 3)).astype(float)
    ids, patients = ("a", "b", "c", "d"), ("p1", "p1", "p2", "p3")
    written = Predictions(("1.png", "2.png", "3.png", "4.png"), *values, labels, ids, patients)
    write_predictions(tmp_path / "one.csv", written)
    read = read_predictions(tmp_path / "one.csv")
    assert (read.names, read.ids, read.patients) == (labels.names, ids, patients)
    turned = read_predictions(tmp_path / "one.csv", labels.restrict(("male", "ICU")))
    np.testing.assert_array_equal(turned.labels, values[1][:, [2, 0]])
    np.testing.assert_allclose(turned.probabilities, values[0][:, [2, 0]], rtol=5e-9)
    with pytest.raises(InputError, match="one.csv: no column named 'prob Edema', 'label Edema'"):
        read_predictions(tmp_path / "one.csv", LabelSet(("ICU", "Edema")))


def test_a_repeated_film_is_refused_with_both_lines(table, tmp_path):
    table.loc[3, "Path"] = table.loc[1, "Path"]
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match="line 5.*line 3"):
        read_predictions(tmp_path / "bad.csv")


def test_missing_columns_rows_and_files_are_refused(table, tmp_path):
    table.drop(columns="prob Edema").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match="bad.csv: no column named 'prob Edema'"):
        read_predictions(tmp_path / "bad.csv")
    table.iloc[:0].to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(InputError, match="no rows"):
        read_predictions(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "absent.csv")


def test_a_diverged_model_is_refused_before_it_is_written(predictions):
    diverged = predictions.probabilities.copy()
    diverged[1, CHEXPERT.names.index("Edema")] = np.nan
    with pytest.raises(InputError, match="patient64542.*Edema.*nan"):
        Predictions(predictions.paths, diverged, predictions.labels, CHEXPERT)


def test_shapes_must_agree(predictions):
    with pytest.raises(ValueError, match="expected"):
        Predictions(predictions.paths[:-1], predictions.probabilities, predictions.labels, CHEXPERT)
