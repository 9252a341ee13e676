"""The names, against CheXpert's and CheXlocalize's own files."""

import pytest

from cxr.files import InputError
from cxr.labels import CHEXPERT, LabelSet


def test_tasks_and_labels_name_each_other():
    assert CHEXPERT.task_of("Lung Opacity") == "Airspace Opacity"
    assert CHEXPERT.label_of("Airspace Opacity") == "Lung Opacity"
    assert {CHEXPERT.task_of(label) for label in CHEXPERT.groups["CheXlocalize"]} == set(CHEXPERT.task_names)
    assert [CHEXPERT.label_of(CHEXPERT.task_of(label)) for label in CHEXPERT.names] == list(CHEXPERT.names)
    assert len(set(CHEXPERT.names)) == 14
    assert len(set(CHEXPERT.groups["CheXlocalize"])) == 10


def test_order_is_that_of_chexperts_own_header(sample):
    header = (sample / "valid.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[5:]) == CHEXPERT.names


def test_tasks_are_those_of_chexlocalizes_results(sample):
    header = (sample / "expected" / "hitmiss.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[:-1]) == CHEXPERT.task_names


def test_accents_have_one_spelling_and_names_that_differ_in_case_alone_are_refused():
    apart = LabelSet(("e\u0301", "b"), {"g": ("e\u0301",)}, {"e\u0301": "tache\u0301"})
    assert apart == LabelSet(("\u00e9", "b"), {"g": ("\u00e9",)}, {"\u00e9": "tach\u00e9"})
    with pytest.raises(ValueError, match="labels: '\u00c9' is '\u00e9' but for upper and lower case"):
        LabelSet(("e\u0301", "\u00c9"))
    with pytest.raises(ValueError, match="tasks: 'b' is there twice"):
        LabelSet(("a", "c"), {}, {"a": "b", "c": "b"})


def test_the_mean_of_shared_labels_says_so_wherever_the_set_travels():
    shared = LabelSet(("Edema", "Pneumonia", "Hernia"), {"water": ("Edema",)}, shared=True)
    assert list(shared.means) == ["Mean (3 shared)", "Mean (water 1)"]
    assert list(shared.restrict(["Hernia", "Edema"]).means) == ["Mean (2 shared)", "Mean (water 1)"]
    assert LabelSet.from_json(shared.to_json(), "run.json") == shared
    assert "shared" not in CHEXPERT.to_json() and list(CHEXPERT.means)[0] == "Mean (14)"


@pytest.mark.parametrize("task", ["A/B", "", " Edema", "a\\b", "../up", "line\nend"])
def test_tasks_name_files_and_must_be_able_to(task):
    with pytest.raises(InputError, match="^dataset.json: tasks: .* is not a name") as told:
        LabelSet.from_json({"names": ["Edema"], "tasks": {"Edema": task}}, "dataset.json")
    assert "\n" not in str(told.value)
