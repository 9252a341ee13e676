"""Learning curves from the tables of a run."""

import pytest
from PIL import Image

from cxr.files import InputError
from reporting.pictures.curves import draw_learning_curves
from training.history import History


def write_history(folder, aurocs):
    history = History()
    for epoch, auroc in enumerate(aurocs, start=1):
        for _ in range(3):
            history.add_step(epoch, 0.7 / epoch, 1e-4, 1.0)
        history.add_epoch(epoch, auroc)
    history.write(folder)


@pytest.mark.parametrize("aurocs", [[0.6, 0.8, 0.7], [0.6], [float("nan")]])
def test_a_picture_is_drawn_from_what_a_run_left(tmp_path, aurocs):
    write_history(tmp_path, aurocs)
    with Image.open(draw_learning_curves(tmp_path)) as picture:
        picture.load()
        assert picture.width > 1000
        assert len(picture.convert("L").getcolors()) > 50


def test_it_depends_on_the_tables(tmp_path):
    pictures = set()
    for aurocs in ([0.6, 0.8], [0.6, 0.7], [0.6, 0.7]):
        write_history(tmp_path, aurocs)
        pictures.add(draw_learning_curves(tmp_path).read_bytes())
    assert len(pictures) == 2


def test_a_missing_table_and_a_word_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"history_steps\.csv: no such file"):
        draw_learning_curves(tmp_path)
    write_history(tmp_path, [0.5])
    steps = tmp_path / "history_steps.csv"
    steps.write_text(steps.read_text().replace("0.7", "low"))
    with pytest.raises(InputError, match=r"history_steps\.csv, line 2, loss: 'low' is not a number"):
        draw_learning_curves(tmp_path)
