"""The training benchmark at tiny settings: its rows, its ratios, and that both ways do the same work."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks import bench_train
from benchmarks.published.training import PublishedLoop, PublishedSet
from benchmarks.training import ratios
from benchmarks.training.films import pack, write_jpegs
from benchmarks.training.loops import OurLoop, synchronisations, timed
from cxr.dataset import FilmDataset
from cxr.manifests.films import read_films
from models.checkpoint import build_model
from training.loader import Batch

NETWORK = "timm/test_efficientnet"


def run(tmp_path, *more):
    sizes = ["--image-size", "64", "--film-size", "80", "--films", "16", "--batches", "2", "--steps", "1"]
    out = ["--out", str(tmp_path / "out.csv")]
    assert bench_train.main(["--device", "cpu", "--backbones", NETWORK, *sizes, *out, *more]) == 0
    return pd.read_csv(tmp_path / "out.csv").fillna({"films": "", "backbone": "", "mode": ""})


def test_rows_ratios_and_the_last_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_train, "PACKED_SIZES", (80, 64))
    table = run(tmp_path)
    rows = table.set_index(["what", "way", "films", "mode"])
    assert list(rows.index) == [
        ("loader, one core", "published", "JPEG", ""),
        ("loader, one core", "ours", "JPEG", ""),
        ("loader, one core", "ours", "packed 80", ""),
        ("loader, one core", "ours", "packed 64", ""),
        ("network", "published", "", "nchw"),
        ("end to end", "published", "JPEG", "nchw"),
        ("network", "ours", "", "nchw"),
        ("network", "ours", "", "channels_last"),
        ("end to end", "ours", "packed 80", "channels_last"),
    ]
    np.testing.assert_allclose(rows["films_per_s"], rows["timed_films"] / rows["seconds"], rtol=1e-6)
    np.testing.assert_allclose(rows["cpu_ms_per_film"], 1000 * rows["cpu_seconds"] / rows["timed_films"], rtol=1e-6)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    for (what, way, films, mode), row in rows.iterrows():
        if way == "published":
            assert np.isnan(row["ratio"]) and np.isnan(row["cpu_ratio"])
            continue
        published = table[(table["what"] == what) & (table["way"] == "published")].iloc[0]
        assert row["ratio"] == pytest.approx(row["films_per_s"] / published["films_per_s"], rel=1e-6)
        assert row["cpu_ratio"] == pytest.approx(published["cpu_ms_per_film"] / row["cpu_ms_per_film"], rel=1e-6)
        name = ", ".join(str(part) for part in (what, row["backbone"], row["batch"], mode, films) if part)
        assert said["cpu_ratio"][name] == pytest.approx(row["cpu_ratio"], abs=0.0051)
    assert said["synchronisations_per_step"]["published"]["aten::item"] >= 1


def test_what_there_is_no_time_for_has_a_row_without_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_train, "PACKED_SIZES", (80,))
    monkeypatch.setattr(bench_train, "synchronisations", lambda *_: {})
    table = run(tmp_path, "--minutes", "0.01", "--workers", "1")
    assert {"loader, all workers", "network", "end to end"} < set(table["what"]) and table["films_per_s"].isna().all()


def test_the_ratio_is_to_the_fastest_published_row_of_the_group():
    rows = [("network", "published", 10.0), ("network", "published", 20.0), ("network", "ours", 30.0)]
    table = pd.DataFrame(rows, columns=["what", "way", "films_per_s"]).assign(backbone="b", batch=1, mode="", films="")
    table["cpu_ms_per_film"] = [np.nan, 4.0, 1.0]
    found = ratios.with_ratios(table)
    assert found["ratio"].iloc[2] == 1.5 and found["cpu_ratio"].iloc[2] == 4 and found["ratio"][:2].isna().all()
    assert ratios.ratios(found) == {"ratio": {"network, b, 1": 1.5}, "cpu_ratio": {"network, b, 1": 4.0}}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_device_is_asked_for_what_it_can_do(device):
    args = bench_train.argparse.Namespace(**bench_train.FEASIBLE[device], device=device)
    cases = bench_train.cases(args)
    assert len(set(cases)) == len(cases)
    modes = {case.mode for case in cases if case.what == "network"}
    batches = {case.batch for case in cases if case.what == "network"}
    backbones = {case.backbone for case in cases if case.backbone}
    if device == "cpu":
        assert (modes, batches, backbones) == ({"nchw", "channels_last"}, {8}, {"efficientnet_b0"})
    else:
        assert {"nchw", "channels_last", "compiled"} < modes and batches == {16, 64, 128}
        assert backbones == {"efficientnet_b0", "efficientnet_v2_s"}
        first_compiled = next(place for place, case in enumerate(cases) if case.mode == "compiled")
        assert all(case.mode == "compiled" for case in cases[first_compiled:]), "what takes longest comes last"


def test_both_loaders_read_the_same_films(tmp_path):
    write_jpegs(tmp_path / "jpegs", 5, 96)
    pack(tmp_path / "jpegs", tmp_path / "packed", 96)
    jpegs, packed = (read_films(tmp_path / form / "train.csv", tmp_path / form) for form in ("jpegs", "packed"))
    published = PublishedSet(jpegs, 96)
    published.augment = nn.Identity()
    pixels = []
    for film in range(5):
        image, labels = published[film]
        ours, our_labels = FilmDataset(packed, 96)[film]
        assert torch.equal(image, ours) and torch.equal(labels, our_labels)
        pixels.append(image)
    assert torch.stack(pixels).std(dim=0).min() > 0, "films differ"


def test_both_loops_make_the_same_updates():
    """On films that are not augmented; a step of AdamW moves every weight by about the learning rate."""
    torch.manual_seed(0)
    labels, images = torch.randint(0, 2, (4, 3)).float(), torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    plain = (images / 255, labels)
    batch = Batch(images, labels, torch.zeros(4), torch.ones(4), torch.arange(4), {}, 0.0)
    losses, weights = [], []
    for loop_class, of_loop in ((PublishedLoop, plain), (OurLoop, batch)):
        torch.manual_seed(1)
        net = build_model(NETWORK, patch_size=32, image_size=64, labels=tuple("abc"))
        loop = loop_class(net, "cpu")
        assert set(timed(loop, [of_loop] * 3, warm_up=1)) == {"seconds", "cpu_seconds"}
        losses.append(loop.losses)
        weights.append(net.head.weight.detach())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 3 and losses[0][2] < losses[0][0]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


class Reads:
    """A loop that looks at its batch a number of times."""

    def __init__(self, looks):
        self.looks = looks

    def step(self, batch):
        for _ in range(self.looks):
            batch.sum().item()

    def finish(self):
        pass


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_waiting_for_a_number_is_counted_per_step(looks):
    assert synchronisations(Reads(looks), torch.ones(3), steps=2)["aten::item"] == looks
