"""Packed films: the same pixels as numpy reads, found by path, and an array that survives any interruption."""

import json
import pickle
import zlib

import numpy as np
import pytest

from cxr.files import InputError, sha256
from cxr.packed import PackedFilms, Packing, damaged_films, open_packed, write_row

SIZE = 8
FILMS = [f"train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(4)]
PIXELS = np.random.default_rng(0).integers(0, 256, (len(FILMS), SIZE, SIZE), dtype=np.uint8)


def packing(folder, films=FILMS, **options):
    csv = folder / "train.csv"
    csv.write_text("Path\n" + "\n".join(films))
    return Packing(folder, "train", films, SIZE, {"labels": {"train.csv": sha256(csv)}}, **options)


def fill(making, rows):
    for row in rows:
        making.done(row, write_row(making.part, row, PIXELS[row]))


@pytest.fixture
def folder(tmp_path):
    making = packing(tmp_path)
    fill(making, range(len(FILMS)))
    making.finish()
    return tmp_path


def test_numpy_reads_the_array_and_the_manifest_says_what_it_is(folder):
    assert np.array_equal(np.load(folder / "train.npy"), PIXELS)
    manifest = json.loads((folder / "train.json").read_text())
    assert (manifest["size"], manifest["count"]) == (SIZE, len(FILMS))
    assert manifest["films"] == {film: zlib.crc32(PIXELS[i].tobytes()) for i, film in enumerate(FILMS)}
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv", "train.json", "train.npy"]


def test_films_are_found_by_path_also_in_another_process(folder):
    packed = pickle.loads(pickle.dumps(open_packed(folder)))
    for row in (2, 0, 3):
        assert np.array_equal(packed.pixels(FILMS[row]), PIXELS[row])
    assert FILMS[1] in packed
    assert "train/patient9/study1/view1_frontal.jpg" not in packed
    with pytest.raises(InputError, match=r"train\.npy: no film 'train/patient9"):
        packed.pixels("train/patient9/study1/view1_frontal.jpg")
    assert open_packed(folder / "elsewhere") is None


def test_the_fingerprint_changes_with_a_pixel(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    making = packing(other)
    fill(making, range(3))
    making.done(3, write_row(making.part, 3, PIXELS[3] ^ np.eye(SIZE, dtype=np.uint8)))
    making.finish()
    assert PackedFilms(folder).fingerprint(FILMS) == PackedFilms(folder).fingerprint(FILMS)
    assert PackedFilms(folder).fingerprint(FILMS) != PackedFilms(other).fingerprint(FILMS)


def test_every_damaged_film_is_named_and_mended(folder):
    assert list(damaged_films(folder)) == []
    for row in (1, 3):
        write_row(folder / "train.npy", row, PIXELS[row] ^ np.eye(SIZE, dtype=np.uint8))
    found = list(damaged_films(folder))
    assert [film for _, film, _ in found] == [FILMS[1], FILMS[3]]
    assert all("crc32" in reason for _, _, reason in found)
    assert packing(folder).missing == []
    mending = packing(folder, check=True)
    assert mending.missing == [1, 3]
    fill(mending, mending.missing)
    mending.finish()
    assert list(damaged_films(folder)) == []


def test_a_changed_label_file_and_an_array_that_is_cut_off_are_named(folder):
    (folder / "train.csv").write_text("Path\n")
    array = folder / "train.npy"
    array.write_bytes(array.read_bytes()[:-1])
    found = [(path.name, film) for path, film, _ in damaged_films(folder)]
    assert found == [("train.csv", ""), ("train.npy", FILMS[3])]
    with pytest.raises(InputError, match="cut off"):
        open_packed(folder).pixels(FILMS[3])


def test_an_array_that_does_not_fit_its_manifest_is_refused(folder):
    np.save(folder / "train.npy", PIXELS[:2])
    with pytest.raises(InputError, match=r"another array, where its manifest says uint8 \(4, 8, 8\)"):
        open_packed(folder).pixels(FILMS[0])
    (folder / "train.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="not an array of packed films"):
        open_packed(folder).pixels(FILMS[0])
    (folder / "train.json").unlink()
    with pytest.raises(InputError, match=r"train\.json: no such file"):
        open_packed(folder).pixels(FILMS[0])


def test_an_interrupted_packing_goes_on_and_does_not_believe_a_row_that_changed(tmp_path):
    making = packing(tmp_path)
    fill(making, [2, 0])
    write_row(making.part, 0, PIXELS[1])  # as after a power failure: in the journal, but not on the disk
    assert open_packed(tmp_path) is None
    again = packing(tmp_path)
    assert again.missing == [0, 1, 3]
    fill(again, again.missing)
    again.finish()
    assert np.array_equal(np.load(tmp_path / "train.npy"), PIXELS)


@pytest.mark.parametrize("killed_before", ["array renamed", "journal removed"])
def test_killed_while_finishing(folder, killed_before):
    journal = folder / ".train.journal"
    making = packing(folder, check=True)
    making._start_journal(making._crc)
    if killed_before == "array renamed":
        (folder / "train.npy").rename(making.part)
    again = packing(folder)
    assert again.missing == []
    again.finish()
    assert np.array_equal(np.load(folder / "train.npy"), PIXELS)
    assert not journal.exists()


def test_a_film_that_could_not_be_read_is_an_error_until_it_is_packed_again(tmp_path):
    making = packing(tmp_path)
    fill(making, [0, 1, 3])
    making.finish()
    with pytest.raises(InputError, match="could not be read when the films were packed"):
        open_packed(tmp_path).pixels(FILMS[2])
    assert [film for _, film, _ in damaged_films(tmp_path)] == [FILMS[2]]
    again = packing(tmp_path)
    assert again.missing == [2]
    fill(again, [2])
    again.finish()
    assert list(damaged_films(tmp_path)) == []


def test_other_films_start_anew(folder):
    assert packing(folder, films=FILMS[::-1]).missing == [0, 1, 2, 3]


def test_a_film_whose_pixels_changed_is_not_trained_on(folder):
    write_row(folder / "train.npy", 1, PIXELS[1] ^ np.eye(SIZE, dtype=np.uint8))
    packed = open_packed(folder)
    assert np.array_equal(packed.pixels(FILMS[0]), PIXELS[0])
    with pytest.raises(InputError, match=r"train.npy: 'train/patient00001.*': other pixels than were packed \(crc32\)"):
        packed.pixels(FILMS[1])


MANIFESTS = [{}, {"size": 8}, {"size": 8, "films": [], "labels": {}}, {"size": True, "films": {}, "labels": {}},
             {"size": 10**9, "films": {"a": 1}, "labels": {}}, {"size": 8, "films": {"a": "1"}, "labels": {}},
             {"size": 8, "films": {"a": -1}, "labels": {}}, {"size": 8, "films": {}, "labels": {"x": 3}}]  # fmt: skip


@pytest.mark.parametrize("manifest", range(len(MANIFESTS)))
def test_odd_manifests_are_one_line(folder, manifest):
    (folder / "train.json").write_text(json.dumps(MANIFESTS[manifest]))
    with pytest.raises(InputError, match=r"train.json: not the manifest of packed films"):
        open_packed(folder).pixels(FILMS[0])


@pytest.mark.parametrize("line", ["x y", "9 1", "-1 1", "1", "1 2 3", "1" * 5000 + " 1", "\xe9 1"])
def test_damaged_lines_of_a_journal_are_not_believed(tmp_path, line):
    making = packing(tmp_path)
    fill(making, [0])
    with open(tmp_path / ".train.journal", "a", encoding="latin1") as journal:
        journal.write(line + "\n")
    assert packing(tmp_path).missing == [1, 2, 3]
