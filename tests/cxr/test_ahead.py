import threading

import pytest

from cxr.ahead import read_ahead


def test_the_next_item_is_read_while_this_one_is_worked_on_and_no_further():
    read, second_was_read = [], threading.Event()

    def reading(item):
        read.append(item)
        if item == 1:
            second_was_read.set()
        return 10 * item

    seen = []
    for item, found in read_ahead(reading, range(4)):
        if item == 0:
            assert second_was_read.wait(30)
        seen.append((item, found, len(read) <= item + 2))
    assert seen == [(0, 0, True), (1, 10, True), (2, 20, True), (3, 30, True)] and read == [0, 1, 2, 3]


def test_an_error_comes_at_its_item_s_turn():
    def reading(item):
        if item == 2:
            raise ValueError("two")
        return item

    seen = []
    with pytest.raises(ValueError, match="two"):
        for pair in read_ahead(reading, [1, 3, 2, 4]):
            seen.append(pair)
    assert seen == [(1, 1), (3, 3)]


def test_nothing_to_read():
    assert list(read_ahead(int, [])) == []
