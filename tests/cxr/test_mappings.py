"""Label mappings: what is made of what, that blanks never become negative, and mistakes in names."""

import math

import numpy as np
import pytest

from cxr.files import InputError
from cxr.labels import CHEXPERT
from cxr.mappings import chosen_mapping, known_mappings, read_mapping

NAN = math.nan
SETS = ("nih", "google_nih", "mimic", "brax", "padchest", "vindr", "rsna", "siim", "taix")


def one_by_one(mapping, row):
    """The slow and obvious way: label by label, part by part. row: label -> value; NaN for a blank."""
    made = {}
    for rule in mapping.rules:
        parts = [row[name] for name in rule.any_of if name in row]
        if 1 in parts:
            made[rule.label] = 1.0
        elif -1 in parts:
            made[rule.label] = -1.0
        elif any(math.isnan(part) for part in parts):
            made[rule.label] = NAN
        else:
            made[rule.label] = 0.0
    return made


@pytest.mark.parametrize("name", SETS)
def test_rules_make_chexpert_labels_in_order_and_say_why(name):
    mapping = read_mapping(name)
    places = [CHEXPERT.index(label) for label in mapping.labels]
    assert places == sorted(set(places))
    assert all(rule.any_of and len(rule.reason) > 10 for rule in mapping.rules)
    assert all(len(set(rule.any_of)) == len(rule.any_of) for rule in mapping.rules)


def test_nih_shares_eight_labels_exactly():
    mapping = read_mapping("nih")
    assert len(mapping.exact().labels) == 8
    assert {rule.label: rule.any_of for rule in mapping.exact().rules}["Pleural Effusion"] == ("Effusion",)
    assert not {"Lung Opacity", "Lung Lesion", "Pleural Other"} & set(mapping.exact().labels)
    assert not {"Fracture", "Support Devices", "Enlarged Cardiomediastinum"} & set(mapping.labels)


@pytest.mark.parametrize(
    ("right", "left", "made"),
    [
        (1, 0, 1),
        (1, NAN, 1),
        (-1, 1, 1),
        (0, 0, 0),
        (0, -1, -1),
        (-1, NAN, -1),
        (0, NAN, NAN),
        (NAN, NAN, NAN),
    ],
)
def test_or_of_two_parts(right, left, made):
    names = ["PleuralEffusion_Left", "HeartSize", "PleuralEffusion_Right"]
    mapping = read_mapping("taix").present(names)
    assert mapping.labels == ("Cardiomegaly", "Pleural Effusion")
    values = mapping.apply(np.array([[left, 0, right]], np.float32), names)
    assert values.shape == (1, 2)
    np.testing.assert_array_equal(values[0], [0, made])


def test_a_healthy_film_makes_no_zeros_where_a_set_has_no_label():
    names = ["No Finding", "Effusion"]
    mapping = read_mapping("nih").present(names)
    assert mapping.labels == ("No Finding", "Pleural Effusion")
    values = mapping.apply(np.array([[1, NAN]], np.float32), names)
    np.testing.assert_array_equal(values, [[1, NAN]])


@pytest.mark.parametrize("name", SETS)
def test_against_the_slow_way(name):
    mapping = read_mapping(name)
    names = sorted({part for rule in mapping.rules for part in rule.any_of} | {"another label"})
    values = np.random.default_rng(0).choice([1, 0, 0, 0, -1, NAN], (1000, len(names))).astype(np.float32)
    fast = mapping.apply(values, names)
    slow = [list(one_by_one(mapping, dict(zip(names, row, strict=True))).values()) for row in values.tolist()]
    np.testing.assert_array_equal(fast, np.array(slow, np.float32))


def test_rules_without_parts_are_left_out():
    kaggle = read_mapping("vindr").present(["Cardiomegaly", "Nodule or Mass", "Lung Opacity"])
    assert kaggle.labels == ("Cardiomegaly", "Lung Opacity", "Lung Lesion")
    with pytest.raises(ValueError, match="No Finding: none of its parts is a label"):
        read_mapping("vindr").apply(np.zeros((1, 1), np.float32), ["Cardiomegaly"])


def test_a_rule_that_lacks_a_part_is_not_exact_for_the_part_may_be_what_the_film_has():
    sides = ["PleuralEffusion_Right", "Atelectasis_Left", "Atelectasis_Right"]
    assert chosen_mapping("taix").present(sides).labels == ("Atelectasis",)
    assert chosen_mapping("taix+approximate").present(sides).labels == ("Atelectasis", "Pleural Effusion")
    with pytest.raises(InputError, match="mapping 'taix': makes no label of this data set"):
        chosen_mapping("taix").present(sides[:1])


def test_a_word_that_no_report_of_padchest_uses_is_one_that_no_film_has():
    mapping = chosen_mapping("padchest").present(["pneumonia", "normal"])
    assert mapping.labels == ("No Finding", "Pneumonia")
    assert mapping.to_json(["pneumonia", "normal"])["labels"] == {"No Finding": ["normal"], "Pneumonia": ["pneumonia"]}


def test_the_option_chooses_exact_rules_or_all():
    assert known_mappings() == SETS
    for name in SETS:
        assert chosen_mapping(f"{name}+approximate").labels == read_mapping(name).labels
        assert chosen_mapping(name).labels == read_mapping(name).exact().labels
    with pytest.raises(InputError, match=r"^'\+approximate'|^'': no such label mapping"):
        chosen_mapping("+approximate")


def test_labels_that_a_network_lacks_are_left_out():
    mapping = read_mapping("nih").to_labels(["Edema", "Scoliosis", "Pneumonia"])
    assert mapping.labels == ("Edema", "Pneumonia")
    with pytest.raises(InputError, match="makes 'Pneumothorax'; the network has none of them, but 'Edema'$"):
        read_mapping("siim").to_labels(["Edema"])


def test_mistakes_are_one_line():
    with pytest.raises(InputError, match=r"^'nhi': no such label mapping; known are nih, google_nih, mimic") as told:
        read_mapping("nhi")
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="mapping 'siim': makes no label of this data set, whose labels are 'AP'"):
        read_mapping("siim").present(["AP", "Male"])
