"""Views, sexes, ages and splits in the words of many releases."""

import pandas as pd
import pytest

from cxr.files import InputError
from preprocessing.manifests.columns import joined, listed, sexes, splits, stems, views, years


def text(*values):
    return pd.Series(values, dtype="str")


def table(**columns):
    made = pd.DataFrame(columns, dtype="str")
    made.attrs["file"] = "t.csv"
    return made


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("57", "57"),
        ("058Y", "58"),
        ("58.0", "58"),
        ("011M", "0"),
        ("030M", "2"),
        ("010W", "0"),
        ("800D", "2"),
        ("85 or more", "85"),
        ("45-50", "45"),
        ("0", "0"),
        ("120", "120"),
        ("121", ""),
        ("414Y", ""),
        ("-3", ""),
        ("", ""),
        ("nan", ""),
        ("9" * 400, ""),
        ("=1+1", ""),
    ],
)
def test_ages(age, expected):
    assert years(text(age)).tolist() == [expected]


def test_ages_in_days():
    assert years(text("21915", "364", "366", ""), unit="D").tolist() == ["60", "0", "1", ""]


def test_views_and_sexes():
    words = ["PA", "AP_horizontal", "LATERAL", "POSTEROANTERIOR", "LL", "COSTAL", "UNK", "nan", "", "=cmd()", " pa "]
    assert views(text(*words)).tolist() == ["PA", "AP", "L", "PA", "L", "COSTAL", "", "", "", "", "PA"]
    assert sexes(text("Male", "f", "M", "O", "Unknown", "nan", "")).tolist() == ["M", "F", "M", "", "", "", ""]


def test_splits():
    assert splits(table(part=["train", "validate", "Valid", "TEST", ""]), "part").tolist() == [
        *("train", "val", "val", "test"),
        "",
    ]
    with pytest.raises(InputError, match=r"^t.csv, line 3, part: 'dev': not a split; expected train, val or test$"):
        splits(table(part=["train", "dev"]), "part")


def test_stems_keep_the_dots_of_uids():
    assert stems(text("a.png", "1.2.276.0.7", "1.2.3.dcm", "x.y.jpeg")).tolist() == ["a", "1.2.276.0.7", "1.2.3", "x.y"]


def test_rows_are_joined_by_all_keys():
    films, labels = table(p=["1", "1", "2"], s=["a", "b", "a"]), table(p=["2", "1"], s=["a", "b"], v=["x", "y"])
    assert joined(films, labels, ["p", "s"], labels["v"]).fillna("-").tolist() == ["-", "y", "x"]
    twice = table(p=["1", "2", "1"], v=["x", "y", "x"])
    with pytest.raises(InputError, match=r"^t.csv, line 4, p: '1' is in line 2 too; keep one of them$"):
        joined(films, twice, ["p"], twice["v"])


def test_lists_of_labels():
    found = listed(table(c=["b a", "", "b"]), "c", str.split)
    assert found.columns.tolist() == ["a", "b"]
    assert found.to_numpy().tolist() == [[1, 1], [0, 0], [0, 1]]
    with pytest.raises(InputError, match=r"^t.csv, line 2, c: 'b a': 'b' is not one of its 1 labels"):
        listed(table(c=["b a"]), "c", str.split, ["a"])
