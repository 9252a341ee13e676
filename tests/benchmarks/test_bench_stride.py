"""The stride benchmark on evidence that is written here: its errors are those of maps made another way."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import bench_stride
from cxr.files import write_json
from cxr.images import Crop
from cxr.masks import encode_mask
from saliency.evidence.evidence_facts import FilmLabels
from saliency.evidence.evidence_files import write_evidence
from saliency.film_maps import Evidence
from saliency.patch_maps import maps_from_grid

PATCH, SIZE = 64, 128
SETTINGS = {"patch_size": PATCH, "image_size": SIZE, "protocol": "corrected"}


def smooth(seed: int) -> torch.Tensor:
    """(1, S, S): evidence at every start, of bumps some 16 pixels wide and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    bumps = torch.nn.functional.interpolate(torch.randn(1, 1, 9, 9, generator=rng), (SIZE, SIZE), mode="bicubic")[0]
    return bumps + 0.01 * torch.randn(1, SIZE, SIZE, generator=rng)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stride")
    masks = {}
    for seed in range(3):
        evidence = Evidence(Crop.centred(SIZE, SIZE), PATCH, PATCH, SIZE, smooth(seed), {})
        labels = FilmLabels(f"film{seed}", ["Edema"], [0.5], [1])
        write_evidence(folder / f"film{seed}.npz", evidence, labels, torch.rand(SIZE, SIZE))
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        mask[30:90, 20:70] = True
        masks[f"film{seed}"] = {"Edema": encode_mask(mask)}
    write_json(folder / "masks.json", masks)
    out = folder / "out.csv"
    command = ["--evidence", f"bumps={folder}", "--masks", str(folder / "masks.json"), "--out", str(out)]
    assert bench_stride.main(command) == 0
    return pd.read_csv(out).set_index(["kind", "value"])


@pytest.mark.parametrize("stride", [3, 9])
def test_the_error_of_a_stride_is_that_of_the_grid_interpolated_by_numpy(table, stride):
    starts, place = np.array(sorted({*range(0, SIZE, stride), SIZE - 1})), np.arange(SIZE)
    errors = []
    for seed in range(3):
        full = smooth(seed)
        sampled = full[0].double().numpy()[np.ix_(starts, starts)]
        columns = np.stack([np.interp(place, starts, column) for column in sampled.T], axis=1)
        filled = torch.from_numpy(np.stack([np.interp(place, starts, row) for row in columns]))[None]
        exact, found = (maps_from_grid(grid, steps_per_patch=PATCH, **SETTINGS)["raw"] for grid in (full, filled))
        errors.append(float(100 * (exact - found).abs().mean() / (exact.max() - exact.min())))
    row = table.loc["stride", stride]
    assert row["mean_error_percent"] == pytest.approx(np.mean(errors), rel=5e-3)  # maps are stored in units of 1 / 400
    assert row["ci_low"] <= row["mean_error_percent"] <= row["ci_high"] and row["films"] == 3
    assert row["patches"] == len(starts) ** 2 and row["times_fewer"] == pytest.approx(SIZE**2 / len(starts) ** 2)
    assert row["outlined"] == 3 and 0 <= row["hits_flipped"] <= 3


def test_coarser_grids_have_larger_errors_and_estimates(table):
    errors, estimates = (table.loc["stride"][name] for name in ("mean_error_percent", "estimate_percent"))
    assert errors.loc[3] < errors.loc[7] < errors.loc[15] and estimates.loc[3] < estimates.loc[7]
    steps = table.loc["steps"]["mean_error_percent"]
    assert steps.loc[32] < steps.loc[16] < steps.loc[8]


def test_an_evidence_of_fewer_steps_is_no_measure(tmp_path):
    evidence = Evidence(Crop.centred(SIZE, SIZE), PATCH, 4, SIZE, torch.rand(1, 8, 8), {})
    write_evidence(tmp_path / "a.npz", evidence, FilmLabels("a", ["Edema"], [0.5], [1]), torch.rand(SIZE, SIZE))
    with pytest.raises(SystemExit, match="not of every start"):
        bench_stride.main(["--evidence", f"x={tmp_path}", "--out", str(tmp_path / "out.csv")])


def test_the_last_line_is_json(table, capsys, tmp_path):
    write_evidence(
        tmp_path / "a.npz",
        Evidence(Crop.centred(SIZE, SIZE), PATCH, PATCH, SIZE, smooth(5), {}),
        FilmLabels("a", ["Edema"], [0.5], [1]),
        torch.rand(SIZE, SIZE),
    )
    bench_stride.main(["--evidence", f"x={tmp_path}", "--out", str(tmp_path / "out.csv")])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mean_error_percent"]["x"]["3"] > 0
