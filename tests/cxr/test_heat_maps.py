import contextlib
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from cxr.files import InputError
from cxr.heat_maps import HeatMapFolder, heat_map_name, parse_heat_map_name, read_heat_map, write_heat_map

FILM = "patient64541_study1_view1_frontal"


def write(folder, task="Edema", image_id=FILM, **changes):
    rng = np.random.default_rng(0)
    given = {"map": rng.random((6, 5), dtype=np.float32), "film_pixels": rng.random((6, 5), dtype=np.float32)}
    given |= {"probability": 0.25, "task": task, "ground_truth": 1, "film_size": (50, 60)} | changes
    path = folder / heat_map_name(image_id, task)
    write_heat_map(path, **given)
    return path


def rewrite(path, **changes):
    content = pickle.loads(path.read_bytes()) | changes
    path.write_bytes(pickle.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


class Call:
    """A pickle of this calls `function(*arguments)` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_round_trip(tmp_path):
    plane = np.random.default_rng(1).random((4, 7), dtype=np.float32)
    path = write(tmp_path, map=plane, probability=0.7, ground_truth=0, film_size=(70, 40))
    heat_map = read_heat_map(path)
    assert (heat_map.image_id, heat_map.task, heat_map.ground_truth) == (FILM, "Edema", 0)
    assert heat_map.probability == 0.7 and heat_map.film_size == (70, 40)
    assert np.array_equal(heat_map.map, plane) and heat_map.map.dtype == np.float32


def test_content_is_chexlocalizes(tmp_path):
    pixels = np.random.default_rng(2).random((6, 5), dtype=np.float32)
    content = pickle.loads(write(tmp_path, film_pixels=pixels).read_bytes())
    assert list(content) == ["map", "prob", "task", "gt", "cxr_img", "cxr_dims"]
    assert content["map"].shape == (1, 1, 6, 5) and content["map"].dtype == torch.float32
    assert content["cxr_img"].shape == (3, 6, 5) and torch.equal(content["cxr_img"][2], torch.from_numpy(pixels))
    assert content["cxr_dims"] == (50, 60) and type(content["prob"]) is float and type(content["gt"]) is int


def test_file_holds_each_number_once(tmp_path):
    classes = torch.rand(14, 512, 512)
    path = write(tmp_path, map=classes[3], film_pixels=torch.rand(3, 512, 512)[0])
    stored = 4 * 512 * 512 * 2  # the map and one channel of the film
    assert stored < path.stat().st_size < 1.01 * stored
    assert np.array_equal(read_heat_map(path).map, classes[3].numpy())


def test_the_same_map_is_the_same_bytes(tmp_path):
    others = [torch.rand(1000) for _ in range(3)]  # so that memory is not laid out as before
    first = write(tmp_path).read_bytes()
    assert len(others) == 3 and write(tmp_path / "again").read_bytes() == first
    content = pickle.loads(first)
    assert content["cxr_img"].stride() == (0, 5, 1) and content["map"].is_contiguous()
    assert torch.equal(torch.add(content["map"], 1), content["map"] + 1)


def test_writing_refuses_what_reading_would(tmp_path):
    for changes in ({"map": np.ones((1, 2, 2))}, {"map": np.full((2, 2), np.nan)}, {"task": "a/b"}):
        with pytest.raises(ValueError):
            write_heat_map(
                tmp_path / "x_map.pkl",
                **{"map": np.ones((2, 2)), "task": "Edema"} | changes,
                probability=0.5,
                ground_truth=0,
                film_size=(4, 4),
                film_pixels=np.ones((2, 2)),
            )
    assert not list(tmp_path.iterdir())


def from_gpu(values):
    """A tensor as if it had been pickled on a GPU."""
    saved = values.storage().__reduce__()[1][0]
    assert saved.count(b"X\x03\x00\x00\x00cpu") == 1
    on_gpu = saved.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    memory = Call(torch.storage._load_from_bytes, on_gpu)
    return Call(torch._utils._rebuild_tensor_v2, memory, 0, tuple(values.shape), values.stride(), False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_map_saved_from_a_gpu(tmp_path):
    values = torch.rand(1, 1, 3, 4)
    assert np.array_equal(read_heat_map(rewrite(write(tmp_path), map=from_gpu(values))).map, values[0, 0].numpy())


@pytest.mark.parametrize("probability", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), 0.5])
def test_kinds_of_probability(tmp_path, probability):
    assert read_heat_map(rewrite(write(tmp_path), prob=probability)).probability == 0.5


def test_a_probability_of_all_labels_is_read_in_chexlocalizes_order(tmp_path):
    # No Finding, Enlarged Cardiomediastinum, Cardiomegaly, Lung Lesion, Airspace Opacity, Edema, ...
    path = rewrite(write(tmp_path, task="Lung Lesion"), prob=torch.arange(14.0))
    assert read_heat_map(path).probability == 3.0


def malicious(kind, canary):
    call = Call(os.mkdir, str(canary))
    if kind == "tensor's memory":
        return {"map": Call(torch._utils._rebuild_tensor_v2, call, 0, (1, 1), (1, 1), False, OrderedDict())}
    if kind == "tensor's bytes":
        return {"map": Call(torch.storage._load_from_bytes, pickle.dumps(call, protocol=2))}
    return {"gt": call if kind == "value" else Call(eval, f"__import__('os').mkdir({str(canary)!r})")}


@pytest.mark.parametrize("kind", ["value", "eval", "tensor's memory", "tensor's bytes"])
def test_nothing_in_a_pickle_is_run(tmp_path, monkeypatch, kind):
    canary = tmp_path / "canary"
    path = write(tmp_path)
    content = pickle.dumps(malicious(kind, canary) | {"task": "Edema"})
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_heat_map(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not canary.exists()
    monkeypatch.setattr(torch.storage, "_load_from_bytes", pickle.loads)  # as unsafe as torch was for years
    with contextlib.suppress(AttributeError):
        pickle.loads(content)
    assert canary.exists()  # so the pickle is one that does harm elsewhere


def test_the_refused_name_is_told(tmp_path):
    path = rewrite(write(tmp_path), gt=Call(print, "x"))
    with pytest.raises(InputError, match="refused, nothing run: it asks for global 'builtins.print'"):
        read_heat_map(path)


def test_every_truncation_is_told_in_one_line(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as error:
            read_heat_map(path)
        assert "not a readable heat map" in str(error.value) and "\n" not in str(error.value)


class LargerThanItsMemory:
    def __reduce__(self):
        shape = ((1, 1, 40, 40), (1600, 1600, 40, 1))
        return torch._utils._rebuild_tensor_v2, (torch.rand(4).storage(), 0, *shape, False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"map": torch.rand(1, 3, 4)}, r"map has shape (1, 3, 4)"),
        ({"map": torch.rand(1, 2, 3, 4)}, r"map has shape (1, 2, 3, 4)"),
        ({"map": torch.rand(1, 1, 0, 4)}, r"map has shape (1, 1, 0, 4)"),
        ({"map": torch.rand(1).expand(1, 1, 10**6, 10**6)}, "not a readable heat map"),
        ({"map": LargerThanItsMemory()}, "not a readable heat map"),
        ({"map": torch.rand(1, 1, 3, 4).double()}, "map is a tensor of float64; expected a float32 tensor"),
        ({"map": [[0.0]]}, "map is a list"),
        ({"map": torch.tensor([[[[0.0, float("nan")]]]])}, "not finite"),
        ({"map": torch.tensor([[[[0.0, float("inf")]]]])}, "not finite"),
        ({"map": torch.tensor([[[[-3e38, 3e38]]]])}, "not finite"),
        ({"task": "Fracture"}, "its task is 'Fracture', but its name says 'Edema'"),
        ({"prob": "high"}, "prob is 'high'"),
        ({"prob": float("nan")}, "prob is nan"),
        ({"gt": 0.5}, "gt is 0.5"),
        ({"cxr_dims": (0, 3)}, "cxr_dims is a tuple"),
        ({"cxr_dims": ...}, "no 'cxr_dims' in it"),
        ({"cxr_dims": (10**5, 10**5)}, "cxr_dims: 100000 x 100000 pixels; the limit is 100 megapixels"),
        ({"cxr_dims": (10**90, 1)}, "a number of 299 bits"),
    ],
)
def test_wrong_content_is_told_in_one_line(tmp_path, changes, words):
    path = rewrite(write(tmp_path), **changes)
    with pytest.raises(InputError) as error:
        read_heat_map(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_not_a_dict_and_no_file(tmp_path):
    path = tmp_path / heat_map_name(FILM, "Edema")
    with pytest.raises(InputError, match="no such file"):
        read_heat_map(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="holds a list"):
        read_heat_map(path)


def test_names():
    assert heat_map_name("p_s_v_frontal", "Lung Lesion") == "p_s_v_frontal_Lung Lesion_map.pkl"
    assert parse_heat_map_name("maps/p_s_v_frontal_Lung Lesion_map.pkl") == ("p_s_v_frontal", "Lung Lesion")
    assert parse_heat_map_name("a_b_Mass_map.pkl", ["b_Mass", "s"]) == ("a", "b_Mass")
    assert parse_heat_map_name("a_b_Mass_map.pkl", ["Edema"]) == ("a_b", "Mass")
    for name in ("Edema_map.pkl", "a_Edema.pkl", "_Edema_map.pkl", "a__map.pkl"):
        with pytest.raises(InputError, match="not a heat map's name"):
            parse_heat_map_name(name, ["Edema"])


def test_a_task_whose_name_holds_an_underscore(tmp_path):
    path = write(tmp_path, image_id="p_1", task="Pleural_Thickening")
    found = read_heat_map(path)
    assert (found.image_id, found.task) == ("p_1", "Pleural_Thickening")
    folder = HeatMapFolder(tmp_path, ["Mass", "Pleural_Thickening"])
    assert folder.entries == [("p_1", "Pleural_Thickening")]
    assert folder.load("p_1", "Pleural_Thickening").map.shape == found.map.shape


def test_folder_lists_maps_at_any_depth(tmp_path):
    write(tmp_path / "b", image_id="z_1")
    write(tmp_path / "a", image_id="z_1", task="Atelectasis")
    write(tmp_path, image_id="a_1", task="No Finding")
    (tmp_path / "notes.txt").write_text("x")
    folder = HeatMapFolder(tmp_path)
    assert folder.entries == [("a_1", "No Finding"), ("z_1", "Atelectasis"), ("z_1", "Edema")]
    assert folder.load("z_1", "Edema").image_id == "z_1"


def test_folder_mistakes(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        HeatMapFolder(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no \*_map.pkl in it"):
        HeatMapFolder(tmp_path)
    write(tmp_path / "a")
    write(tmp_path / "b")
    with pytest.raises(InputError, match="same film and task"):
        HeatMapFolder(tmp_path)


def test_film_pixels_are_what_was_written_and_a_pickle_without_them_is_refused(tmp_path):
    film = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    facts = {"probability": 0.5, "task": "Edema", "ground_truth": 1, "film_size": (8, 6)}
    write_heat_map(tmp_path / "a_Edema_map.pkl", map=np.ones((2, 2), np.float32), film_pixels=film, **facts)
    np.testing.assert_array_equal(HeatMapFolder(tmp_path).film_pixels("a"), film)
    (tmp_path / "b_Edema_map.pkl").write_bytes(pickle.dumps({"map": None}))
    with pytest.raises(InputError, match="b_Edema_map.pkl: cxr_img is not a"):
        HeatMapFolder(tmp_path).film_pixels("b")
