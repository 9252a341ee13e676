"""Tensors and numpy numbers inside a pickle, rebuilt as numpy views without torch's or numpy's constructors; and
tensors pickled for others to read.

A CPU or GPU tensor is pickled as `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`, its storage as
`torch.storage._load_from_bytes(bytes)`, whose bytes are a `torch.save` of the storage: the legacy layout (magic number,
version, system, storage, keys, count and values, as every torch writes it there) or the zip. Sizes, strides and offsets
are checked in Python's whole numbers against the bytes that are there before an array is made.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch

from cxr.files import quoted
from cxr.pickles.plain_pickle import Builder, Damaged, Global, Refused, read_pickle

LARGEST_DIMENSIONS = 8
LARGEST_COUNT = 2**31
"""Values of one tensor, those of an expanded one counted as often as they appear."""

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001

_KINDS = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "|i1",
    "torch.ByteStorage": "|u1",
    "torch.BoolStorage": "|b1",
}


@dataclass(frozen=True)
class PickledTensor:
    """values: a view of any strides into the storage; stored: the number of values that the storage holds."""

    values: np.ndarray
    stored: int


@dataclass(frozen=True)
class _Storage:
    values: np.ndarray  # (n,)


@dataclass(frozen=True)
class _Promise:
    """A storage that the inner pickle names; its values follow."""

    kind: str
    key: str
    count: int


def read_tensor_pickle(file: IO[bytes]) -> Any:
    """Reads one pickle of numbers, strings, containers, tensors (PickledTensor) and numpy numbers (int, float, bool).

    Raises plain_pickle.Refused, naming what the pickle asks for beyond that, or plain_pickle.Damaged.
    """
    return read_pickle(file, _BUILDERS)


class TensorPickler(pickle.Pickler):
    """Pickles float32 tensors as torch does, but the same tensor always to the same bytes.

    torch names a storage by its address in memory; here it is `0`. The file is for every torch's `pickle.load`.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            storage = _Bytes(_storage_bytes(value))
            place_in_it = (value.storage_offset(), tuple(value.shape), tuple(value.stride()))
            return torch._utils._rebuild_tensor_v2, (storage, *place_in_it, False, OrderedDict())
        if isinstance(value, _Bytes):
            return torch.storage._load_from_bytes, (value.data,)
        return NotImplemented


class _Bytes:
    """The bytes of a storage; pickled as the call that reads them."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class _StoragePickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", value.count, None) if isinstance(value, _Count) else None


@dataclass(frozen=True)
class _Count:
    """Stands for the storage of so many values."""

    count: int


def _storage_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes that torch's legacy `torch.save` writes for a float32 tensor's storage."""
    values = torch.empty(0).set_(tensor.untyped_storage()).numpy().astype("<f4")  # (n,)
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": _VERSION, "little_endian": True, "type_sizes": sizes}
    file = io.BytesIO()
    for value in (_MAGIC, _VERSION, system):
        pickle.dump(value, file, protocol=2)
    _StoragePickler(file, protocol=2).dump(_Count(len(values)))
    pickle.dump(["0"], file, protocol=2)
    file.write(struct.pack("<q", len(values)) + values.tobytes())
    return file.getvalue()


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise Refused("an OrderedDict made from something")
    return {}


def _encode(text: Any, encoding: Any) -> bytes:
    """The bytes of protocol 2, which has none of its own."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("an encoding other than latin1")
    return text.encode("latin1")


class _NumberKind:
    """A numpy dtype of one number: code (`f8`) and byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(code, str) or code.lstrip("<>|=") not in ("f2", "f4", "f8", *_WHOLE, "b1"):
            raise Refused(f"a numpy dtype of {quoted(code)}")
        self.code, self.order = code.lstrip("<>|="), code[0] if code[0] in "<>" else "<"

    def set_state(self, state: Any) -> None:
        """numpy's state of a plain number: version, byte order, and nothing of subarrays, fields or sizes."""
        rest = state[2:] if isinstance(state, tuple) else ()
        if not all(type(item) in (int, type(None)) for item in rest) or rest != (None, None, None, -1, -1, 0):
            raise Refused("a numpy dtype with a state of its own")
        if state[1] not in ("<", ">", "|", "="):
            raise Refused("a numpy dtype of unknown byte order")
        self.order = ">" if state[1] == ">" else "<"


_WHOLE = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def _number(kind: Any, data: Any) -> int | float | bool:
    if not isinstance(kind, _NumberKind) or not isinstance(data, bytes) or len(data) != int(kind.code[1:]):
        raise Refused("a numpy scalar that is not one number")
    return np.frombuffer(data, kind.order + kind.code)[0].item()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> PickledTensor:
    if not isinstance(storage, _Storage):
        raise Damaged("a tensor without a storage")
    sizes, strides = _numbers(size), _numbers(stride)
    (start,) = _numbers((offset,))
    if len(sizes) != len(strides):
        raise Damaged("a tensor with more sizes than strides, or fewer")
    count, last = 1, start
    for length, step in zip(sizes, strides, strict=True):
        count *= length
        last += max(length - 1, 0) * step
    stored = len(storage.values)
    if count > LARGEST_COUNT or (count and last >= stored) or start > stored:
        raise Damaged(f"a tensor of {quoted(count)} values reaches beyond the {stored} that are stored")
    item = storage.values.itemsize
    bytes_per_step = tuple(step * item for step in strides) if count else None
    values = np.ndarray(sizes, storage.values.dtype, storage.values, start * item if count else 0, bytes_per_step)
    return PickledTensor(values, stored)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > LARGEST_DIMENSIONS:
        raise Damaged("a tensor whose shape is not a few numbers")
    if not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise Damaged("a tensor whose shape is not whole numbers from 0")
    return tuple(values)


def _storage(data: Any) -> _Storage:
    if not isinstance(data, bytes):
        raise Damaged("a storage without bytes")
    return _zipped(data) if data.startswith(b"PK\x03\x04") else _legacy(data)


def _promise(identifier: Any) -> _Promise:
    """(`storage`, kind, key, device, count[, view]): the device does not matter, the values lie in the file."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise Refused("a persistent identifier that is not a storage")
    kind, key, count, view = identifier[1], identifier[2], identifier[4], identifier[5:]
    if not isinstance(kind, Global) or not isinstance(key, str) or type(count) is not int or view not in ((), (None,)):
        raise Refused("a storage of unknown layout")
    return _Promise(_KINDS[kind.name], key, count)


def _not_called(*_: Any) -> Any:
    raise Refused("a call of a storage")


_STORAGE_KINDS: Mapping[str, Builder] = dict.fromkeys(_KINDS, _not_called)


def _legacy(data: bytes) -> _Storage:
    file = io.BytesIO(data)
    if read_pickle(file, {}) != _MAGIC or read_pickle(file, {}) != _VERSION:
        raise Damaged("a storage of unknown layout")
    system = read_pickle(file, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("a storage of another byte order")
    promise = read_pickle(file, _STORAGE_KINDS, _promise)
    keys = read_pickle(file, {})
    if not isinstance(promise, _Promise) or not isinstance(keys, list) or len(keys) != 1 or keys[0] != promise.key:
        raise Damaged("a storage of unknown layout")
    head = file.read(8)
    if len(head) != 8 or struct.unpack("<q", head)[0] != promise.count:
        raise Damaged("a storage of another length than it says")
    return _values(promise, memoryview(data)[file.tell() :])


def _zipped(data: bytes) -> _Storage:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise Refused("a compressed storage")
            if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
                raise Refused("a storage of another byte order")
            promise = read_pickle(io.BytesIO(archive.read(names["data.pkl"])), _STORAGE_KINDS, _promise)
            if not isinstance(promise, _Promise):
                raise Damaged("a storage of unknown layout")
            return _values(promise, memoryview(archive.read(names[f"data/{promise.key}"])))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError, EOFError, struct.error):
        raise Damaged("a storage in a broken zip") from None


def _values(promise: _Promise, data: memoryview) -> _Storage:
    size = np.dtype(promise.kind).itemsize
    if promise.count < 0 or promise.count * size > len(data):
        raise Damaged("a storage that is cut off")
    return _Storage(np.frombuffer(data[: promise.count * size], promise.kind))


_BUILDERS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "numpy.dtype": _NumberKind,
    "numpy._core.multiarray.scalar": _number,
    "numpy.core.multiarray.scalar": _number,
}
