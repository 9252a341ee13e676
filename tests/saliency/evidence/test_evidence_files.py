import io
import json
import math
import pickle
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.files import InputError
from cxr.heat_maps import HeatMapFolder
from cxr.images import Crop
from cxr.names import METHODS, PROTOCOLS, Method
from saliency.cam import CAMS
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.export import HeatMapExport, export_film
from saliency.film_maps import film_maps, gather_evidence
from saliency.patch_maps import PATCH_VALUES, logits_to_unit, patch_maps
from tests.saliency.toy_networks import ToyNetwork

TASK_OF = {"Lung Opacity": "Airspace Opacity", "Edema": "Edema"}
TASKS = tuple(TASK_OF.values())
TRUTH = {"Lung Opacity": 1.0, "Edema": 0.0, "Pneumonia": 1.0}
IMAGE_ID = "patient00001_study1_view1_frontal"


OF_ONE_FILM = tuple(method for method in METHODS if method != "relative")
"""Methods whose maps follow from the film alone."""


def model() -> ToyNetwork:
    return ToyNetwork(patch_size=8, image_size=16)


def film(height: int = 37, width: int = 50, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def square(seed: int = 1) -> tuple[Image.Image, torch.Tensor]:
    """A film of the network's own size, and its pixels (1, 16, 16) in [0, 1]."""
    drawn = film(16, 16, seed)
    return drawn, torch.from_numpy(np.array(drawn)).float()[None] / 255


def export(results, pickles=True, **changes) -> HeatMapExport:
    settings = {
        "methods": OF_ONE_FILM,
        "protocols": PROTOCOLS,
        "tasks": TASK_OF,
        "steps_per_patch": 4,
        "batch_size": 1,
    }
    return HeatMapExport(results, "val", **(settings | changes), pickles=pickles)


def test_evidence_gives_the_very_maps_that_pickles_hold(tmp_path):
    with_pickles = tmp_path / "pickles"
    for root, pickles in ((with_pickles, True), (tmp_path, False)):
        assert export_film(export(root, pickles), model(), film(), IMAGE_ID, TRUTH)
    folder = tmp_path / "evidence" / "val"
    (beside_pickles,) = (with_pickles / "evidence" / "val").iterdir()
    assert beside_pickles.read_bytes() == (folder / beside_pickles.name).read_bytes()
    assert EvidenceFolder.kinds(folder) == sorted((p, method) for p in PROTOCOLS for method in OF_ONE_FILM)
    for protocol in PROTOCOLS:
        for method in OF_ONE_FILM:
            stored = HeatMapFolder(with_pickles / "heatmaps" / protocol / "val" / method)
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
    (drawn, pixels), network = square(), model()
    export_film(export(tmp_path, False, methods=["raw"], steps_per_patch=steps), network, drawn, IMAGE_ID, TRUTH)
    found = open_folder(tmp_path / "evidence" / "val").patch_logits(IMAGE_ID, "Edema")
    for row in range(2):
        for column in range(2):
            patch = pixels[None, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            alone = network.head(network.features(patch).mean(dim=(2, 3)))[0, 0].item()
            assert found[row, column] == pytest.approx(alone, abs=1e-5)
    assert found.mean() == pytest.approx(network(pixels[None])[0, 0].item(), abs=1e-5)


def test_labels_are_matched_by_name():
    """The network's third output is the first task, under CheXlocalize's name."""
    network, crop, image = model(), Crop.centred(16, 16), torch.rand(1, 16, 16)
    outputs = [network.labels.index("Lung Opacity"), network.labels.index("Edema")]
    settings = {"methods": ["raw"], "steps_per_patch": 2, "batch_size": 1}
    evidence = gather_evidence(network, image, crop, outputs=outputs, **settings)
    expected = patch_maps(network, image, steps_per_patch=2, protocol="corrected", batch_size=1)["raw"]
    assert torch.equal(film_maps(evidence, ["raw"], "corrected")["raw"], logits_to_unit(expected[[2, 0]]))


def test_probability_and_ground_truth_go_with_their_task(tmp_path):
    drawn, pixels = square()
    export_film(export(tmp_path, False, methods=["gradcam"]), model(), drawn, IMAGE_ID, TRUTH)
    folder = EvidenceFolder(tmp_path / "evidence" / "val", method="gradcam", protocol="published", tasks=TASKS)
    probability = torch.sigmoid(model()(pixels[None])[0])
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
    assert not export(tmp_path, pickles, methods=["raw"], tasks=TASK_OF | {"Pneumonia": "Pneumonia"}).is_complete(
        IMAGE_ID
    )


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
    with pytest.raises(InputError, match="the network: no 'Fracture'; its labels are 'Edema', 'Pneumonia'"):
        export_film(export(tmp_path, tasks={"Fracture": "Fracture"}), model(), film(), IMAGE_ID, {"Fracture": 1.0})
    with pytest.raises(
        InputError, match=f"{IMAGE_ID}: unknown heat-map method 'lime'; known are scaled, raw, relative, gradcam"
    ):
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
    with pytest.raises(InputError, match="no file in it holds evidence of gradcam"):
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


@pytest.mark.parametrize(
    "change",
    [
        {"probability": {"Edema": math.nan}},
        {"probability": {"Edema": 7}},
        {"ground_truth": {"Edema": 1e400}},
        {"ground_truth": {}},
        {"image_size": True},
        {"steps_per_patch": 3},
        {"crop": {"film_width": 50, "film_height": 37, "left": 0, "top": 0, "side": 37}},
        {"crop": {"film_width": 10**9, "film_height": 10**9, "left": 0, "top": 0, "side": 1}},
        {"crop": {"film_width": 50.5, "film_height": 37, "left": 6, "top": 0, "side": 37}},
        {"crop": {"film_width": 10_000, "film_height": 8, "left": 4996, "top": 0, "side": 8}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_numbers_out_of_range_are_told_in_one_line(tmp_path, change):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **arrays | {"facts": np.array(json.dumps(json.loads(str(arrays["facts"])) | change))})
    with pytest.raises(InputError, match=rf"{IMAGE_ID}\.npz: .*delete it and run again") as told:
        open_folder(folder).load(IMAGE_ID, "Edema")
    assert str(told.value).isprintable()


def test_a_grid_of_another_size_is_told_in_one_line(tmp_path):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    with np.load(path) as content:
        facts = str(content["facts"])
    assert json.loads(facts)["steps_per_patch"] == 4
    np.savez(path, facts=np.array(facts), **{"grid Edema": np.zeros((3, 3), np.float32)})
    with pytest.raises(InputError, match="expected an evidence grid"):
        open_folder(folder).load(IMAGE_ID, "Edema")


# ------------------------------------------------------------------------------------------------------------- merging


def evidence_bytes(results) -> bytes:
    return (results / "evidence" / "val" / f"{IMAGE_ID}.npz").read_bytes()


@pytest.mark.parametrize("parts", [(["raw", "scaled"], ["gradcam"], ["eigencam", "gradcam++"]), (["gradcam"], ["raw"])])
def test_methods_exported_one_after_the_other_give_the_file_of_one_run(tmp_path, parts):
    for methods in parts:
        assert export_film(export(tmp_path / "parts", False, methods=methods), model(), film(), IMAGE_ID, TRUTH)
    together = [method for methods in parts for method in methods]
    export_film(export(tmp_path / "once", False, methods=together), model(), film(), IMAGE_ID, TRUTH)
    assert evidence_bytes(tmp_path / "parts") == evidence_bytes(tmp_path / "once")


def test_tasks_exported_one_after_the_other_are_all_there(tmp_path):
    for label, task in TASK_OF.items():
        export_film(export(tmp_path, False, tasks={label: task}), model(), film(), IMAGE_ID, TRUTH)
    export_film(export(tmp_path / "once", False), model(), film(), IMAGE_ID, TRUTH)
    for method in OF_ONE_FILM:
        settings = {"method": method, "protocol": "corrected", "tasks": TASKS}
        merged, once = (EvidenceFolder(at / "evidence/val", **settings) for at in (tmp_path, tmp_path / "once"))
        assert merged.entries == once.entries == [(IMAGE_ID, task) for task in TASKS]
        for entry in once.entries:
            ours, theirs = merged.load(*entry), once.load(*entry)
            assert np.array_equal(ours.map, theirs.map)
            assert (ours.probability, ours.ground_truth) == (theirs.probability, theirs.ground_truth)


def test_steps_count_for_grids_only(tmp_path):
    export_film(export(tmp_path, False, methods=["raw"], steps_per_patch=2), model(), film(), IMAGE_ID, TRUTH)
    export_film(export(tmp_path, False, methods=["gradcam"], steps_per_patch=8), model(), film(), IMAGE_ID, TRUTH)
    assert open_folder(tmp_path / "evidence/val").evidence(IMAGE_ID, "Edema").steps_per_patch == 2


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        ({"steps_per_patch": 2}, "steps per patch 4, not 2"),
        ({"weights": "b" * 64}, f"weights '{'a' * 60}...', not '{'b' * 60}...'"),
    ],
)
@pytest.mark.parametrize("methods", [["raw"], ["raw", "gradcam"]])
def test_evidence_of_other_settings_or_weights_is_kept_and_the_run_refused(tmp_path, second, difference, methods):
    first = export(tmp_path, False, methods=["raw"], weights="a" * 64)
    export_film(first, model(), film(), IMAGE_ID, TRUTH)
    before = evidence_bytes(tmp_path)
    again = export(tmp_path, False, **({"methods": methods, "weights": "a" * 64} | second))
    with pytest.raises(InputError, match=re.escape(difference)) as told:
        export_film(again, model(), film(), IMAGE_ID, TRUTH)
    assert "\n" not in str(told.value)
    assert evidence_bytes(tmp_path) == before


@pytest.mark.parametrize(
    ("other_model", "other_film", "message"),
    [
        (ToyNetwork(4, 16), film(), "patch size 8, not 4"),
        (ToyNetwork(8, 24), film(), "with other pixels"),  # the stored film is 16 px high
        (ToyNetwork(8, 16), film(seed=2), "with other pixels"),
        (ToyNetwork(8, 16), film(40, 50), "with other pixels"),
    ],
    ids=["patch size", "image size", "film", "film size"],
)
def test_evidence_of_another_network_or_film_is_not_merged(tmp_path, other_model, other_film, message):
    folder_with_one_film(tmp_path)
    before = evidence_bytes(tmp_path)
    with pytest.raises(InputError, match=message):
        export_film(export(tmp_path, False, methods=["gradcam"]), other_model, other_film, IMAGE_ID, TRUTH)
    assert evidence_bytes(tmp_path) == before


def test_a_method_that_some_films_lack_is_refused(tmp_path):
    """A second run for more methods that was killed halfway must not be scored on half of the films."""
    for name in ("a", "b"):
        export_film(export(tmp_path, False, methods=["raw"]), model(), film(), name, TRUTH)
    export_film(export(tmp_path, False, methods=["gradcam"]), model(), film(), "a", TRUTH)
    with pytest.raises(InputError, match=r"b\.npz: 1 files without gradcam; run evalClassification\.py"):
        EvidenceFolder(tmp_path / "evidence/val", method="gradcam", protocol="corrected", tasks=TASKS)
    assert len(open_folder(tmp_path / "evidence/val").entries) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": "b" * 64}, "weights"),
        ({"steps_per_patch": 2}, "steps per patch 2, not 4"),
        ({"steps_per_patch": 8, "stride": 3}, "steps per patch 8, not 4"),
    ],
)
def test_files_of_two_networks_or_two_settings_are_no_folder(tmp_path, change, told):
    folder = tmp_path / "evidence/val"
    for film_id, changes in (("a", {"weights": "a" * 64}), ("b", {"weights": "a" * 64} | change)):
        settings = {"methods": ("raw", "gradcam"), "protocols": ("corrected",)} | changes
        export_film(export(tmp_path, False, **settings), model(), film(), film_id, TRUTH)
    with pytest.raises(InputError, match=rf"b\.npz: evidence of another network or setting \({told}"):
        open_folder(folder)
    of_cam = {"method": "gradcam", "protocol": "corrected", "tasks": TASKS}
    if "weights" not in change:  # class activation maps have neither steps nor a stride
        assert len(EvidenceFolder(folder, **of_cam).entries) == 4


def test_a_film_without_a_label_is_exported(tmp_path):
    export_film(export(tmp_path, False, methods=["raw"]), model(), film(), IMAGE_ID, TRUTH | {"Edema": math.nan})
    assert open_folder(tmp_path / "evidence/val").load(IMAGE_ID, "Edema").ground_truth == -1


@pytest.mark.parametrize("size", [(10_000, 8), (8, 10_000), (1100, 100)])
def test_a_film_too_elongated_for_a_map_is_refused_before_anything_is_allocated(tmp_path, size):
    with pytest.raises(InputError, match=f"{IMAGE_ID}: no heat map of a film of {size[0]} x {size[1]} px"):
        export_film(export(tmp_path), model(), film(size[1], size[0]), IMAGE_ID, TRUTH)
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.pkl"))


def test_a_new_method_is_one_function_and_one_row(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "halved", Method("halved", "Halved", "patch", signed=True, in_paper=False))
    monkeypatch.setitem(PATCH_VALUES, "halved", lambda logits, shifts, protocol: logits / 2)
    methods = ["raw", "halved"]
    export_film(export(tmp_path, False, methods=methods), model(), film(), IMAGE_ID, TRUTH)
    export_film(export(tmp_path, True, methods=methods), model(), film(), IMAGE_ID, TRUTH)
    assert ("corrected", "halved") in EvidenceFolder.kinds(tmp_path / "evidence/val")
    raw, halved = (
        EvidenceFolder(tmp_path / "evidence/val", method=method, protocol="corrected", tasks=TASKS).load(
            IMAGE_ID, "Edema"
        )
        for method in methods
    )
    np.testing.assert_allclose(halved.map - 0.5, (raw.map - 0.5) / 2, atol=1e-6)
    stored = HeatMapFolder(tmp_path / "heatmaps/corrected/val/halved").load(IMAGE_ID, "Edema")
    assert np.array_equal(stored.map, halved.map)


def test_every_method_has_a_row_and_a_function():
    assert set(OF_ONE_FILM) == set(PATCH_VALUES) | set(CAMS)


# ------------------------------------------------------------------------------------------------------- damaged files


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
    with pytest.raises(InputError, match=r"npz: damaged \(array 'facts' of kind '\|O'"):
        open_folder(folder).load(IMAGE_ID, "Edema")
    assert not canary.exists()


def tiny(value) -> np.ndarray:
    return np.full((8, 8), value, np.float32)


@pytest.mark.parametrize(
    "grid",
    [
        tiny(0).astype(np.float64),
        tiny(0).astype(complex),
        tiny(0).astype(np.uint8),
        tiny(math.nan),
        tiny(math.inf),
        np.zeros((8, 8, 1), np.float32),
        np.zeros((0, 8), np.float32),
        np.zeros((8, 8), np.float32).T[::2],
        np.array("text"),
        np.array([("a", 1)], dtype=[("name", "U1"), ("n", "i4")]),
    ],
    ids=["double", "complex", "uint8", "nan", "inf", "axes", "empty", "strided", "text", "records"],
)
def test_arrays_of_odd_kinds_are_told_in_one_line(tmp_path, grid):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    with np.load(path) as content:
        facts = content["facts"]
    np.savez(path, facts=facts, **{"grid Edema": grid})
    with pytest.raises(InputError, match=rf"{IMAGE_ID}\.npz: .*delete it and run again") as told:
        open_folder(folder).load(IMAGE_ID, "Edema")
    assert "\n" not in str(told.value)


def test_sizes_are_refused_before_they_are_allocated(tmp_path):
    """A header that declares 400 GB, a compressed array of zeros, and facts that ask for a map of 10^10 pixels."""
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    with np.load(path) as content:
        facts = str(content["facts"])
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (100_000, 1_000_000)})
    np.savez(path, facts=np.array(facts))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("grid Edema.npy", huge.getvalue())
    refused = [(folder, "of kind '<f4' and shape '.100000, 1000000.'")]

    bomb = tmp_path / "bomb"
    bomb.mkdir()
    np.savez_compressed(bomb / path.name, facts=np.array(facts), **{"grid Edema": np.zeros((4000, 4000), np.float32)})
    refused.append((bomb, "is compressed or larger than its file"))

    wide = tmp_path / "wide"
    wide.mkdir()
    sizes = {"patch_size": 50_000, "steps_per_patch": 1, "image_size": 100_000}
    np.savez(
        wide / path.name,
        facts=np.array(json.dumps(json.loads(facts) | sizes)),
        **{"grid Edema": np.zeros((2, 2), "f4")},
    )
    refused.append((wide, "sizes are whole numbers from 1 to 4096"))
    for where, message in refused:
        tracemalloc.start()
        with pytest.raises(InputError, match=message):
            open_folder(where).load(IMAGE_ID, "Edema")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    "facts",
    [
        "[" * 100_000,
        '{"patch_size": ' + "9" * 5000 + "}",
        json.dumps({"crop": {}, "patch_size": 8}),
        "null",
        "\u2028",
    ],
    ids=["nested", "long number", "no crop", "null", "line end"],
)
def test_odd_facts_are_told_in_one_line(tmp_path, facts):
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    np.savez(path, facts=np.array(facts), **{"grid Edema": tiny(0)})
    for read in (open_folder(folder).load, open_folder(folder).patch_logits, open_folder(folder).evidence):
        with pytest.raises(InputError, match="delete it and run again") as told:
            read(IMAGE_ID, "Edema")
        assert str(told.value).isprintable()


def test_flipped_bytes_are_told_in_one_line_or_change_nothing_else(tmp_path):
    """Each mutant is read, or refused in one line."""
    folder = folder_with_one_film(tmp_path)
    path = folder / f"{IMAGE_ID}.npz"
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        mutant = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            mutant[place] = rng.integers(0, 256)
        path.write_bytes(mutant)
        try:
            open_folder(folder).load(IMAGE_ID, "Edema")
        except InputError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused > 20
