"""The picture of mean IoU over thresholds: every curve lies where its numbers say."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.files import InputError
from cxr.tables import write_csv
from reporting.pictures import curves

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)
DPI = 200


def write_tables(folder, peaks, start=0.1):
    """Curves that rise linearly from `start` at 0 to (threshold, value) and fall to 0 at 1; None: no curve."""
    x = np.linspace(0, 1, 65)
    columns = {"threshold": x}
    for task, peak in peaks.items():
        columns[task] = np.full(65, np.nan) if peak is None else np.interp(x, [0, peak[0], 1], [start, peak[1], 0])
    write_csv(folder / "miou_curve.csv", pd.DataFrame(columns))
    tuned = [(0.5 if peak is None else peak[0], task) for task, peak in peaks.items()]
    write_csv(folder / "tuning_results.csv", pd.DataFrame(tuned, columns=["threshold", "task"]))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    kept, save = [], curves.save
    monkeypatch.setattr(
        curves, "save", lambda figure, *args, **more: [kept.append(figure), save(figure, *args, **more)][1]
    )
    return kept


def colour(picture, figure, panel, x, y):
    """Of the pixel at a point of a panel."""
    left, bottom = panel.transData.transform((x, y)) / figure.dpi * DPI
    return picture.getpixel((round(left - 0.5), round(picture.height - bottom - 0.5)))


@pytest.mark.parametrize("count", [1, 3, 10])
def test_curves_and_best_thresholds_lie_where_the_tables_say(tmp_path, figures, count):
    peaks = {f"task {n}": (0.25 + n / 32, 0.2 + n / 20) for n in range(count)}
    write_tables(tmp_path, peaks)
    with Image.open(curves.draw_miou_curves(tmp_path)) as stored:
        picture = stored.convert("RGB")
    (figure,) = figures
    for panel, (task, (threshold, value)) in zip(figure.axes, peaks.items(), strict=False):
        assert panel.get_title() == task
        assert colour(picture, figure, panel, threshold, value) == VERMILION
        for x in (threshold / 2, (1 + threshold) / 2):
            y = np.interp(x, [0, threshold, 1], [0.1, value, 0])
            assert colour(picture, figure, panel, x, y) == BLUE
            assert colour(picture, figure, panel, x, y + 0.05) == (255, 255, 255)


def test_a_task_that_no_film_tunes_has_words_and_no_curve(tmp_path):
    write_tables(tmp_path, {"Edema": None, "Mass": None})
    settings = dict(matplotlib.rcParams)
    with Image.open(curves.draw_miou_curves(tmp_path)) as stored:
        picture = stored.convert("RGB")
    found = {of for _, of in picture.getcolors(2**24)}
    assert found and not found & {BLUE, VERMILION} and dict(matplotlib.rcParams) == settings
    with pytest.raises(InputError, match=r"tuning_results\.csv: no such file"):
        curves.draw_miou_curves(tmp_path / "elsewhere")


def test_same_tables_same_bytes(tmp_path):
    drawn = []
    for value in (0.3, 0.3, 0.31):
        write_tables(tmp_path, {"Edema": (0.25, value), "Mass": None})
        drawn.append(curves.draw_miou_curves(tmp_path).read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]
