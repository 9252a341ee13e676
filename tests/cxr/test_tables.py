"""CSV files: what spreadsheets and people do to them is read right or named with its line."""

import csv
import gzip
import io
import random
import zipfile

import pandas as pd
import pytest

from cxr.files import InputError
from cxr.tables import line_of, read_csv, write_csv


def test_csv_has_nine_digits_unix_lines_and_empty_undefined(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, pd.DataFrame({"x": [1 / 3, float("nan")], "n": [1, 2]}))
    assert path.read_bytes() == b"x,n\n0.333333333,1\n,2\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"Path,x\n", "no rows"),
        (b"Path\n1\n", "no column named 'x'"),
        (b"\xff\xfe\x00", "UTF-16 text"),
    ],
)
def test_read_csv_names_the_file_and_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(path, columns=["Path", "x"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_csv_keeps_strings_and_takes_a_byte_order_mark(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfPath,x\n001,NA\n")
    table = read_csv(path, columns=["Path", "x"])
    assert table.to_dict("records") == [{"Path": "001", "x": "NA"}]


def written(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Path;x\na;1\n", "line 1: separated by semicolons; save it with commas"),
        ("Path\tx\na\t1\n", "line 1: separated by tabs; save it with commas"),
        ("Path,x,x\na,1,2\n", "line 1: the column 'x' is there twice"),
        ("Path,x, x \na,1,2\n", "line 1: the column 'x' is there twice"),
        ("\n\nPath,x\n\na,1,\n", "line 5: 3 fields, where the header has 2: a comma at the end of the row"),
        ("Path,x\na,1\n\nb,1,2\n", "line 4: 3 fields, where the header has 2; put a value"),
        ("Path,x\na,1\nb\n", "line 3: 1 fields, where the header has 2; is the row cut off"),
        ('Path,x\n"a\nb",1\n"c,1\nd,2\n', "line 4: not a readable CSV file: a quote that does not close"),
        ('Path,x\n"a"b,1\n', "line 2: not a readable CSV file"),
        ("Path,x\na,1\nb\0,2\n", "line 3: not a readable CSV file: NUL bytes"),
        (b"Path,x\na,1\nb\xe9,2\n", "line 3: not a readable CSV file: not UTF-8 text"),
        ("Path,x\na,1\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("Path,x\na," + "1" * 200_000 + "\n", "line 2: not a readable CSV file: field larger"),
        ("\n\n", "the file is empty"),
        ("Path,x\n,\n  ,\n", "no rows below the header"),
        ("Path,\x1b[31m\na,1\n", "no column named 'x'; the header has: 'Path', '.x1b.31m'"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        read_csv(path, ("Path", "x"))
    assert str(error.value).startswith(str(path)) and str(error.value).isprintable()


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="a folder, where a file was expected"):
        read_csv(tmp_path)


def test_a_large_table_is_read_as_the_csv_module_reads_it(tmp_path):
    rng = random.Random(0)
    texts = ["", "1.0", "a b", '"quoted, ""so"""', "'=1", "  é\u2003"]
    rows = [[f"film {row}", *rng.choices(texts, k=3)] for row in range(6000)]
    path = written(tmp_path, "\n".join(",".join(row) for row in [["Path", "x", "y", "z"], *rows]))
    plain = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    table = read_csv(path)
    assert table.to_numpy().tolist() == [[cell.strip().replace("'=", "=") for cell in row] for row in plain[1:]]
    assert [line_of(table, row) for row in (0, 127, 128, 5999)] == [2, 129, 130, 6001]
    assert len({id(text) for text in table["x"].to_numpy(dtype=object)}) < 20  # not 6,000 texts: each is kept once


def test_a_fault_in_a_later_row_is_told_with_its_line(tmp_path):
    rows = "a,b\n" + "1,2\n" * 500
    with pytest.raises(InputError, match=r"t\.csv, line 502: 3 fields, where the header has 2: a comma at the end"):
        read_csv(written(tmp_path, rows + "1,2, \n3,4,5\n"))
    with pytest.raises(InputError, match=r"t\.csv, line 503: not a readable CSV file: a quote that does not close"):
        read_csv(written(tmp_path, rows + '1,2,3\n"4,5\n'))


def test_blank_lines_and_line_ends_within_values_do_not_shift_the_lines(tmp_path):
    path = written(tmp_path, '\n Path ,x,\r\n\r\n a , 1 ,\r\n,,\r\n"b\nb","2",\n  \nc,"",\n')
    table = read_csv(path, ("Path", "x"))
    assert table.to_dict("list") == {"Path": ["a", "b\nb", "c"], "x": ["1", "2", ""]}
    assert [line_of(table, row) for row in range(3)] == [4, 6, 9]
    assert [line_of(table["x"], row) for row in table.index[table["x"] != "1"]] == [6, 9]
    assert line_of(pd.DataFrame({"a": [1]}), 0) == 2


TEXTS = ["=1+1", "+1", "-1", "-1.5e-3", "-x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+1", "'quoted'", "it's", "", "a=b",
         '=HYPERLINK("http://x","y")', "a,b", 'say "x"', "\uff1d1", "-", "line\nend", "car\rriage", "ü"]  # fmt: skip


def test_formulas_are_defused_and_read_back_as_they_were(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, pd.DataFrame({"=name": TEXTS, "number": [-1.5] * len(TEXTS)}))
    cells = [row[0] for row in csv.reader(io.StringIO(path.read_text(), newline=""))]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n\uff1d")] == ["-1", "-1.5e-3", "-"]
    table = read_csv(path)
    assert list(table["=name"]) == TEXTS and set(table["number"]) == {"-1.5"}


def test_random_tables_are_read_as_an_independent_reader_reads_them(tmp_path):
    rng = random.Random(12)
    for _ in range(200):
        rows = [["".join(rng.choices("ab1.-=' ,\"\n", k=rng.randrange(6))) for _ in range(3)] for _ in range(5)]
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([["a", "b", "c"], ["x"] * 3, *rows])
        table = read_csv(written(tmp_path, buffer.getvalue()))
        expected = [["x"] * 3]
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                expected.append(
                    [
                        cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in ("=", "-", "\n") else cell
                        for cell in cells
                    ]
                )
        assert table.to_numpy().tolist() == expected


def test_random_texts_survive_writing_and_reading(tmp_path):
    rng = random.Random(13)
    texts = ["x" + "".join(rng.choices("=+-@'\"\r\n,;\tä", k=rng.randrange(8))) + "x" for _ in range(300)]
    texts += [text[1:] for text in texts]
    texts = [text for text in texts if text == text.strip()]
    write_csv(tmp_path / "t.csv", pd.DataFrame({"a": texts}))
    assert list(read_csv(tmp_path / "t.csv")["a"]) == texts


def test_packed_tables(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.csv", "a\n1\n")
    for name in ("a.csv.gz", "a.zip"):
        assert list(read_csv(tmp_path / name)["a"]) == ["1"]
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="damaged"):
            read_csv(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.csv", "a\n1\n")
        archive.writestr("y.csv", "a\n1\n")
    with pytest.raises(InputError, match="holds 2 files"):
        read_csv(tmp_path / "a.zip")
