"""The reader of pickles agrees with Python's own on good ones, and survives every bad one."""

import io
import os
import pickle
import struct
import time
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch

from cxr.pickles.pickled_tensors import PickledTensor, read_tensor_pickle
from cxr.pickles.plain_pickle import Damaged, Refused

MUTANTS = int(os.environ.get("PICKLE_MUTANTS", 2000))


class Call:
    """A pickle of this calls `function(*arguments)` when it is loaded, and gives the result `state`."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments, *([] if state is None else [state]))

    def __reduce__(self):
        return self.call


def read(data):
    return read_tensor_pickle(io.BytesIO(data))


def same(ours, theirs):
    """Whether our value is the one that Python's unpickler gives."""
    if torch.is_tensor(theirs):
        array = theirs.detach().numpy()
        return ours.values.dtype == array.dtype and np.array_equal(
            ours.values, array, equal_nan=array.dtype.kind == "f"
        )
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, (list, tuple)):
        return type(ours) is type(theirs) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, np.generic):
        return type(ours) is type(theirs.item()) and ours == theirs.item()
    return type(ours) is type(theirs) and ours == theirs


shared = torch.rand(3, 4)

GOOD = {
    "plain": [
        None,
        True,
        False,
        0,
        -1,
        255,
        256,
        65536,
        -(2**31),
        2**40,
        1.5,
        "",
        "ü\n",
        (),
        (1,),
        (1, 2),
        (1, 2, 3, 4),
    ],
    "containers": {"a": [[], {}, {"b": (1, [2])}], 3: "three", "x" * 300: b"bytes\xff" * 60},
    "many": {str(i): i for i in range(2500)},
    "tensors": {"a": torch.rand(1, 1, 6, 5), "t": torch.rand(2, 3).t(), "e": torch.rand(1, 4).expand(3, 4)},
    "shared": [shared, shared[1:], shared[:, ::2], shared],
    "empty": [torch.zeros(0), torch.zeros(3, 0), torch.tensor(2.5), torch.tensor(7)],
    "kinds": [torch.tensor([0, 1]).to(kind) for kind in (torch.float64, torch.float16, torch.int32, torch.int16)],
    "bytes": [torch.tensor([0, 1]).to(kind) for kind in (torch.uint8, torch.int8, torch.bool)],
    "nan": torch.tensor([float("nan"), float("inf")]),
    "numpy": [np.float32(0.1), np.float64(0.1), np.int64(-3), np.uint8(200), np.bool_(True), np.float16(0.5)],
    "one kind twice": [np.float64(0.25), np.float64(0.75)],
    "hooks": OrderedDict([("a", 1)]),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", GOOD)
def test_good_pickles_give_what_python_gives(kind, protocol):
    data = pickle.dumps(GOOD[kind], protocol=protocol)
    theirs = pickle.loads(data)
    assert same(read(data), theirs)


def test_python_2_strings_and_a_number_of_the_other_byte_order():
    assert read(b"(S'a'\nU\x01bT\x01\x00\x00\x00cl.") == pickle.loads(b"(S'a'\nU\x01bT\x01\x00\x00\x00cl.")
    swapped = np.frombuffer(struct.pack(">d", 0.3), ">f8")[0]
    data = pickle.dumps(swapped, protocol=4)
    assert read(data) == pickle.loads(data) == 0.3


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_storage_saved_as_a_zip():
    values, file = torch.rand(2, 3), io.BytesIO()
    torch.save(values.storage(), file)
    memory = Call(torch.storage._load_from_bytes, file.getvalue())
    data = pickle.dumps(Call(torch._utils._rebuild_tensor_v2, memory, 0, (2, 3), (3, 1), False, OrderedDict()))
    assert np.array_equal(read(data).values, values.numpy())


def test_a_view_knows_how_much_is_stored():
    tensor = read(pickle.dumps(torch.rand(1).expand(1000, 1000)))
    assert isinstance(tensor, PickledTensor) and tensor.values.shape == (1000, 1000) and tensor.stored == 1


# ------------------------------------------------------------------------------------------------ hostile files

EVIL_STATE = (3, "<", None, ("x",), {"x": (np.dtype("f8"), 2**40)}, 2**40, 8, 0)


def dtype_with(state):
    return Call(np.dtype, "f8", False, True, state=state)


def tensor_of(count, size, stride, offset=0):
    memory = torch.rand(count).storage()
    return Call(torch._utils._rebuild_tensor_v2, memory, offset, size, stride, False, OrderedDict())


def nested_by_reference(depth, width, kind=b"l"):
    """A pickle of a list of `width` references to one list, `depth` times: width ** depth items on the way through."""
    data = b"(" + kind
    for _ in range(depth):
        data += b"p0\n0(" + b"g0\n" * width + kind
    return data + b"."


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Call(os.system, "true"), "system"),
        (Call(print, "x"), "builtins.print"),
        (Call(eval, "1"), "builtins.eval"),
        (np.array([1.0]), "_reconstruct"),
        (dtype_with(EVIL_STATE), "state of its own"),
        (dtype_with((3, "<", None, None, None, -1, 2**40, 0)), "state of its own"),
        (dtype_with((3, "<", None, None, None, 2**40, -1, 64)), "state of its own"),
        (dtype_with((4, "<", ("f8", (2**40,)), None, None, -1, -1, 0)), "state of its own"),
        (Call(np.dtype, "V99999999"), "numpy dtype of 'V99999999'"),
        (Call(np.dtype, "O"), "numpy dtype of 'O'"),
        (Call(np.dtype, [("a", "O")]), "numpy dtype of a list"),
        (Call(np._core.multiarray.scalar, np.dtype("f8"), b"1234567"), "not one number"),
        (Call(np._core.multiarray.scalar, np.dtype("f8"), [8]), "not one number"),
        (Call(bytearray, 2**40), "builtins.bytearray"),
        (Call(OrderedDict, [[1, 2]]), "OrderedDict"),
        (2**200, "a number of 201 bits"),
        ({(1, 2): 3}, "dict key"),
        (torch.float32, "torch"),
        (torch.nn.Parameter(torch.rand(2)), "_rebuild_parameter"),
        ({1, 2}, "EMPTY_SET"),
        (bytearray(b"x"), "bytearray"),
    ],
)
def test_whatever_else_a_pickle_asks_for_is_refused_and_named(evil, named):
    with pytest.raises(Refused) as refused:
        read(pickle.dumps({"map": evil}, protocol=4))
    assert named in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2, 2), (3, 1), 0),
        ((2,), (-1,), 3),
        ((-1,), (1,), 0),
        ((1,), (1,), -1),
        ((1,), (1,), 4),
        ((2**62,), (0,), 0),
        ((2**31, 2**31), (0, 0), 0),
        ((2**33, 0, 2**33), (1, 1, 1), 2**40),
        ((2,), (2**63,), 0),
        ((1,) * 9, (1,) * 9, 0),
        ((4,), (1, 1), 0),
        ((True,), (1,), 0),
        ((1.0,), (1,), 0),
        (4, 1, 0),
    ],
)
def test_a_tensor_that_reaches_beyond_its_four_values_is_refused(size, stride, offset):
    with pytest.raises(Damaged):
        read(pickle.dumps(tensor_of(4, size, stride, offset)))


@pytest.mark.parametrize(
    "data",
    [
        nested_by_reference(10, 20),
        nested_by_reference(10, 20, b"t"),
        b"(" * 200_000 + b"l" * 200_000 + b".",
        b"]" + b"2a" * 3 + b".",  # a list that holds itself
        b"(I1\n" + b"2" * 200_000 + b"l.",
        b"]" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - index) for index in range(50_000)) + b".",
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"\x8b\xff\xff\xff\x7f" + b"\x7f" * 100_000 + b".",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x95" + struct.pack("<Q", 2**63 - 1) + b"N.",
    ],
    ids=range(11),
)
def test_bombs_end_soon_and_small(data):
    started = time.monotonic()
    try:
        value = read(data)
    except (Refused, Damaged) as error:
        assert len(str(error)) < 200
    else:
        assert value is None or isinstance(value, (list, tuple))
    assert time.monotonic() - started < 5


def test_deep_tuples_as_keys_are_not_hashed():
    with pytest.raises(Refused, match="dict key"):
        read(b"}(" + b")" + b"\x85" * 300_000 + b"Nu.")


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_and_every_mutant_is_read_or_refused(zipped):
    """Seeded; PICKLE_MUTANTS sets how many."""
    values, file = torch.rand(2, 3), io.BytesIO()
    torch.save(values.storage(), file, _use_new_zipfile_serialization=zipped)
    memory = Call(torch.storage._load_from_bytes, file.getvalue())
    tensor = Call(torch._utils._rebuild_tensor_v2, memory, 0, (2, 3), (3, 1), False, OrderedDict())
    good = {"map": tensor, "prob": np.float64(0.5), "cxr_dims": (3, 4), "task": "Edema"}
    rng = np.random.default_rng(13)
    sources = [pickle.dumps(good, protocol=protocol) for protocol in (2, 4)]
    outcomes = {"read": 0, "refused": 0}
    for index in range(MUTANTS // 2):
        data = bytearray(sources[index % 2])
        if index % 10 == 0:
            del data[int(rng.integers(len(data))) :]
        for place in rng.integers(max(len(data), 1), size=rng.integers(1, 4)) if data else ():
            data[place] = rng.integers(256) if rng.random() < 0.5 else data[place] ^ (1 << int(rng.integers(8)))
        try:
            read(bytes(data))
            outcomes["read"] += 1
        except (Refused, Damaged) as error:
            outcomes["refused"] += 1
            assert str(error).isprintable() and len(str(error)) < 300
    assert min(outcomes.values()) > MUTANTS // 40


def test_the_reader_takes_no_unpickler(monkeypatch):
    """Neither Python's nor torch's: whatever they gain or lose does not matter here."""
    data = pickle.dumps(GOOD["tensors"])

    def never(*_, **__):
        raise AssertionError("an unpickler was asked")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, never)
    assert np.array_equal(read(data)["a"].values, GOOD["tensors"]["a"].numpy())


LENGTHS = {
    "BINBYTES": b"B\xff\xff\xff\xff",
    "BINUNICODE": b"X\xff\xff\xff\xff",
    "LONG4": b"\x8b\xff\xff\xff\x7f",
    "BINSTRING": b"T\xff\xff\xff\x7f",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**40),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**40),
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40),
}


@pytest.mark.parametrize("opcode", LENGTHS)
def test_a_length_that_the_file_does_not_have_reserves_no_memory(tmp_path, opcode):
    """Python's files reserve what a read asks for: four gigabytes for five bytes of a pickle."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + LENGTHS[opcode] + b"abc.")
    with open(tmp_path / "a.pkl", "rb") as file:
        tracemalloc.start()
        try:
            with pytest.raises((Damaged, Refused)):
                read_tensor_pickle(file)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()
