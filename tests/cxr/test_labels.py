"""The names, against CheXpert's and CheXlocalize's own files."""

from cxr.labels import CHEXLOCALIZE_LABELS, LABELS, TASKS, label_of, task_of


def test_tasks_and_labels_name_each_other():
    assert task_of("Lung Opacity") == "Airspace Opacity"
    assert label_of("Airspace Opacity") == "Lung Opacity"
    assert {task_of(label) for label in CHEXLOCALIZE_LABELS} == set(TASKS)
    assert [label_of(task_of(label)) for label in LABELS] == list(LABELS)
    assert len(set(LABELS)) == 14
    assert len(set(CHEXLOCALIZE_LABELS)) == 10


def test_order_is_that_of_chexperts_own_header(sample):
    header = (sample / "valid.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[5:]) == LABELS


def test_tasks_are_those_of_chexlocalizes_results(sample):
    header = (sample / "expected" / "hitmiss.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[:-1]) == TASKS
