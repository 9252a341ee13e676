import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from toy_networks import ToyNetwork

from cxr.files import InputError
from cxr.heat_maps import HeatMapFolder
from cxr.images import Crop
from cxr.names import PROTOCOLS
from saliency.evidence_files import EvidenceFolder
from saliency.export import HeatMapExport, export_film
from saliency.film_maps import METHODS, film_maps, gather_evidence
from saliency.patch_maps import patch_maps, to_unit

TASKS = ("Airspace Opacity", "Edema")
TRUTH = {"Lung Opacity": 1.0, "Edema": 0.0, "Pneumonia": 1.0}
IMAGE_ID = "patient00001_study1_view1_frontal"


def model() -> ToyNetwork:
    return ToyNetwork(patch_size=8, image_size=16)


def film() -> torch.Tensor:
    return torch.rand(1, 37, 50, generator=torch.Generator().manual_seed(1))


def export(results, pickles=True, **changes) -> HeatMapExport:
    settings = {"methods": METHODS, "protocols": PROTOCOLS, "tasks": TASKS, "steps_per_patch": 4, "batch_size": 1}
    return HeatMapExport(results, "val", **(settings | changes), pickles=pickles)


def test_evidence_gives_the_very_maps_that_pickles_hold(tmp_path):
    for pickles in (True, False):
        assert export_film(export(tmp_path, pickles), model(), film(), IMAGE_ID, TRUTH)
    folder = tmp_path / "evidence" / "val"
    assert EvidenceFolder.kinds(folder) == sorted((protocol, method) for protocol in PROTOCOLS for method in METHODS)
    for protocol in PROTOCOLS:
        for method in METHODS:
            stored = HeatMapFolder(tmp_path / "heatmaps" / protocol / "val" / method)
            made = EvidenceFolder(folder, method=method, protocol=protocol, tasks=TASKS)
            assert made.entries == stored.entries == [(IMAGE_ID, task) for task in TASKS]
            for entry in made.entries:
                ours, pickled = made.load(*entry), stored.load(*entry)
                assert ours.map.dtype == np.float32 and np.array_equal(ours.map, pickled.map)
                assert (ours.image_id, ours.task, ours.film_size) == (pickled.image_id, pickled.task, (50, 37))
                assert (ours.probability, ours.ground_truth) == (pickled.probability, pickled.ground_truth)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_patch_logits_are_those_of_the_film_as_it_is_cut(tmp_path, steps):
    """Each patch of the crop through the network by itself; their mean is the film's logit."""
    square, network = torch.rand(1, 16, 16), model()
    export_film(export(tmp_path, False, methods=["raw"], steps_per_patch=steps), network, square, IMAGE_ID, TRUTH)
    found = open_folder(tmp_path / "evidence" / "val").patch_logits(IMAGE_ID, "Edema")
    for row in range(2):
        for column in range(2):
            patch = square[None, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            alone = network.head(network.features(patch).mean(dim=(2, 3)))[0, 0].item()
            assert found[row, column] == pytest.approx(alone, abs=1e-5)
    assert found.mean() == pytest.approx(network(square[None])[0, 0].item(), abs=1e-5)


def test_labels_are_matched_by_name():
    """The network's third output is the first task, under CheXlocalize's name."""
    network, crop, image = model(), Crop.centred(16, 16), torch.rand(1, 16, 16)
    outputs = [network.labels.index("Lung Opacity"), network.labels.index("Edema")]
    settings = {"methods": ["raw"], "steps_per_patch": 2, "batch_size": 1}
    evidence = gather_evidence(network, image, crop, labels=outputs, **settings)
    expected = patch_maps(network, image, steps_per_patch=2, protocol="corrected", batch_size=1)["raw"]
    assert torch.equal(film_maps(evidence, ["raw"], "corrected")["raw"], to_unit(expected[[2, 0]]))


def test_probability_and_ground_truth_go_with_their_task(tmp_path):
    square = torch.rand(1, 16, 16)
    export_film(export(tmp_path, False, methods=["gradcam"]), model(), square, IMAGE_ID, TRUTH)
    folder = EvidenceFolder(tmp_path / "evidence" / "val", method="gradcam", protocol="published", tasks=TASKS)
    probability = torch.sigmoid(model()(square[None])[0])
    for task, output, truth in (("Airspace Opacity", 2, 1), ("Edema", 0, 0)):
        loaded = folder.load(IMAGE_ID, task)
        assert loaded.probability == pytest.approx(probability[output].item(), abs=1e-6)
        assert loaded.ground_truth == truth


def test_pickles_hold_the_film_under_the_map(tmp_path):
    export_film(export(tmp_path), model(), film(), IMAGE_ID, TRUTH)
    for protocol, shape in (("published", (16, 16)), ("corrected", (16, 22))):
        path = tmp_path / "heatmaps" / protocol / "val" / "raw" / f"{IMAGE_ID}_Edema_map.pkl"
        with open(path, "rb") as handle:
            content = pickle.load(handle)
        assert content["map"].shape == (1, 1, *shape) and content["cxr_img"].shape == (3, *shape)
        assert content["cxr_dims"] == (50, 37)
        tensors = 4 * shape[0] * shape[1] * 2  # a map and one channel of the film
        assert path.stat().st_size < tensors + 2000


@pytest.mark.parametrize("pickles", [True, False])
def test_what_is_complete_is_not_made_again(tmp_path, pickles):
    settings = export(tmp_path, pickles, methods=["raw", "eigencam"])
    assert not settings.is_complete(IMAGE_ID)
    assert export_film(settings, model(), film(), IMAGE_ID, TRUTH)
    assert settings.is_complete(IMAGE_ID) and not export_film(settings, None, film(), IMAGE_ID, TRUTH)
    assert not export(tmp_path, pickles).is_complete(IMAGE_ID), "other methods are still missing"
    assert not export(tmp_path, pickles, methods=["raw"], tasks=(*TASKS, "Pneumonia")).is_complete(IMAGE_ID)


def test_a_missing_pickle_makes_a_film_incomplete(tmp_path):
    settings = export(tmp_path, methods=["raw"])
    export_film(settings, model(), film(), IMAGE_ID, TRUTH)
    settings.pickle_path("corrected", "raw", IMAGE_ID, "Edema").unlink()
    assert not settings.is_complete(IMAGE_ID) and export_film(settings, model(), film(), IMAGE_ID, TRUTH)


def test_nothing_is_left_behind_by_a_film_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        export_film(export(tmp_path, False), model(), film(), IMAGE_ID, TRUTH)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_network_without_the_label_and_an_unknown_method_are_refused(tmp_path):
    with pytest.raises(InputError, match="'Fracture' is not a label of this network"):
        export_film(export(tmp_path, tasks=["Fracture"]), model(), film(), IMAGE_ID, {"Fracture": 1.0})
    with pytest.raises(ValueError, match="unknown method 'lime'; known are raw, scaled"):
        export_film(export(tmp_path, methods=["lime"]), model(), film(), IMAGE_ID, TRUTH)


def folder_with_one_film(tmp_path):
    export_film(export(tmp_path, False, methods=["raw"]), model(), film(), IMAGE_ID, TRUTH)
    return tmp_path / "evidence" / "val"


def open_folder(folder) -> EvidenceFolder:
    return EvidenceFolder(folder, method="raw", protocol="corrected", tasks=TASKS)


def test_folders_without_evidence_are_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no evidence files \(\*\.npz\) in it"):
        open_folder(tmp_path / "nowhere")
    folder = folder_with_one_film(tmp_path)
    with pytest.raises(InputError, match="hold no evidence of gradcam"):
        EvidenceFolder(folder, method="gradcam", protocol="corrected", tasks=TASKS)


def test_a_truncated_file_is_told_in_one_line(tmp_path):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=rf"{IMAGE_ID}\.npz: damaged .*delete it and run again"):
        open_folder(folder)


@pytest.mark.parametrize("facts", ["{", "[]", '{"crop": {"left": 1}}', '{"probability": {}}'])
def test_facts_that_do_not_fit_are_told_in_one_line(tmp_path, facts):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    np.savez(path, facts=np.array(facts), **{"grid Edema": np.zeros((8, 8), np.float32)})
    for read in (open_folder(folder).load, open_folder(folder).patch_logits):
        with pytest.raises(InputError, match=f"{IMAGE_ID}.npz: .*run again") as told:
            read(IMAGE_ID, "Edema")
        assert "\n" not in str(told.value)


def test_a_grid_of_another_size_is_told_in_one_line(tmp_path):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    with np.load(path) as content:
        facts = str(content["facts"])
    assert json.loads(facts)["steps_per_patch"] == 4
    np.savez(path, facts=np.array(facts), **{"grid Edema": np.zeros((3, 3), np.float32)})
    with pytest.raises(InputError, match="expected an evidence grid"):
        open_folder(folder).load(IMAGE_ID, "Edema")


class Canary:
    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_inside_is_refused_and_not_run(tmp_path):
    folder, canary = folder_with_one_film(tmp_path), tmp_path / "canary"
    path = folder / f"{IMAGE_ID}.npz"
    np.savez(path, facts=np.array([Canary(canary)], dtype=object), **{"grid Edema": np.zeros((8, 8), np.float32)})
    with zipfile.ZipFile(path) as archive:
        assert b"canary" in archive.read("facts.npy")
    with pytest.raises(InputError, match="damaged or without"):
        open_folder(folder).load(IMAGE_ID, "Edema")
    assert not canary.exists()
