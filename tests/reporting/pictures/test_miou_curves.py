"""The picture of mean IoU over thresholds: every curve lies where its numbers say."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.files import InputError
from cxr.tables import write_csv
from reporting.pictures.curves import draw_miou_curves
from reporting.pictures.panels import Panels

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)
DPI = 200
NAMES = {"x_name": "x", "y_name": "y"}


def write_tables(folder, peaks, start=0.1):
    """Curves that rise linearly from `start` at 0 to (threshold, value) and fall to 0 at 1; None: no curve."""
    x = np.linspace(0, 1, 65)
    columns = {"threshold": x}
    for task, peak in peaks.items():
        columns[task] = np.full(65, np.nan) if peak is None else np.interp(x, [0, peak[0], 1], [start, peak[1], 0])
    write_csv(folder / "miou_curve.csv", pd.DataFrame(columns))
    tuned = [(0.5 if peak is None else peak[0], task) for task, peak in peaks.items()]
    write_csv(folder / "tuning_results.csv", pd.DataFrame(tuned, columns=["threshold", "task"]))


def colour(picture, place):
    """Of the pixel at a place in inches from the lower left."""
    return picture.getpixel((round(place[0] * DPI - 0.5), round(picture.height - place[1] * DPI - 0.5)))


@pytest.mark.parametrize("count", [1, 3, 10])
def test_curves_and_best_thresholds_lie_where_the_tables_say(tmp_path, count):
    peaks = {f"task {n}": (0.25 + n / 32, 0.2 + n / 20) for n in range(count)}
    write_tables(tmp_path, peaks)
    with Image.open(draw_miou_curves(tmp_path)) as stored:
        picture = stored.convert("RGB")
    high = 1.2 * max(value for _, value in peaks.values())
    panels = Panels(count, -(-count // 2), high, **NAMES)
    assert picture.size == tuple((panels.figure.get_size_inches() * DPI).astype(int))
    for panel, (threshold, value) in enumerate(peaks.values()):
        assert colour(picture, panels.at(panel, threshold, value)) == VERMILION
        for x in (threshold / 2, (1 + threshold) / 2):
            y = np.interp(x, [0, threshold, 1], [0.1, value, 0])
            assert colour(picture, panels.at(panel, x, y)) == BLUE
            assert colour(picture, panels.at(panel, x, y + 0.05)) == (255, 255, 255)


def test_a_task_that_no_film_tunes_has_words_and_no_curve(tmp_path):
    write_tables(tmp_path, {"Edema": None, "Mass": None})
    settings = dict(matplotlib.rcParams)
    with Image.open(draw_miou_curves(tmp_path)) as stored:
        picture = stored.convert("RGB")
    found = {of for _, of in picture.getcolors(2**24)}
    assert found and not found & {BLUE, VERMILION} and dict(matplotlib.rcParams) == settings
    with pytest.raises(InputError, match=r"tuning_results\.csv: no such file"):
        draw_miou_curves(tmp_path / "elsewhere")


def test_same_tables_same_bytes(tmp_path):
    drawn = []
    for value in (0.3, 0.3, 0.31):
        write_tables(tmp_path, {"Edema": (0.25, value), "Mass": None})
        drawn.append(draw_miou_curves(tmp_path).read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("high", [1.2, 0.34, 0.06, 0.0024])
def test_ticks_are_few_round_and_inside(high):
    panels = Panels(10, 5, high, **NAMES)
    left = {text.get_position()[1]: text.get_text() for text in panels.figure.texts if text.get_ha() == "right"}
    upper = sorted((y, float(text)) for y, text in left.items() if y > panels.at(0, 0, 0)[1] - 1e-9)
    assert 3 <= len(upper) <= 6 and upper[0][1] == 0 and upper[-1][1] <= high
    for y, value in upper:
        assert y == pytest.approx(panels.at(0, 0, value)[1], abs=1e-6)
