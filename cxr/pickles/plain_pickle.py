"""Reads pickles of plain values without Python's unpickler: nothing in the file can be imported, called or built.

`pickletools.genops` splits the bytes into opcodes, and a small stack machine builds numbers, strings, bytes, lists,
tuples and dicts of them (protocols 0 to 5). A global of the pickle becomes a `Global`, a mere name; a call of one is
looked up in a table of functions that the caller gives. Every other opcode and name ends the reading.

Time and memory grow with the length of the file alone: a value used twice is referred to, numbers have at most 128
bits, dict keys are strings or numbers (hashing nested tuples has no bound in time or C stack), and no value is compared
or printed.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from cxr.files import quoted

Builder = Callable[..., Any]

_LARGEST_BITS = 128  # torch's magic number has 77

_VALUES = frozenset(
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "SHORT_BINBYTES BINBYTES BINBYTES8 STRING BINSTRING SHORT_BINSTRING".split()
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Refused(Exception):
    """The pickle asks for more than plain values; the message names the opcode or global."""


class Damaged(Exception):
    """The bytes are not a whole pickle."""


@dataclass(frozen=True)
class Global:
    """A name in a pickle, `module.name`; nothing was imported."""

    name: str


def read_pickle(
    file: IO[bytes], builders: Mapping[str, Builder], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Reads one pickle from a seekable binary file and leaves the position behind it.

    builders: `module.name` -> function that is called with the arguments of a REDUCE; it has to check them itself.
        Names that are mapped may also stand as values. persistent: takes the identifier of a BINPERSID.
    Raises Refused or Damaged.
    """
    machine = _Machine(builders, persistent)
    position = 0
    try:
        for opcode, argument, at in pickletools.genops(_Bounded(file)):  # type: ignore[arg-type]
            position = at or 0
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = str(error) if isinstance(error, _Wrong) else "no opcode with its arguments"
        raise Damaged(f"byte {position}: {reason}") from None


class _Bounded:
    """A file whose reads take no more memory than it has bytes left: Python reserves as much as a read asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.readline, self.tell = file.readline, file.tell
        self._file, position = file, file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(position)

    def read(self, count: int) -> bytes:
        return self._file.read(count if count <= 4096 else min(count, max(self._end - self.tell(), 0)))


class _Wrong(ValueError):
    """A ValueError whose message was written here, and may be shown."""


class _Machine:
    def __init__(self, builders: Mapping[str, Builder], persistent: Callable[[Any], Any] | None) -> None:
        self.builders, self.persistent = builders, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each MARK
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.push(_value(argument))
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise Refused(f"opcode {name}")

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise _Wrong("ends with other than one value")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _Wrong("takes more values than there are")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def name(self, name: str) -> None:
        if name not in self.builders:
            raise Refused(f"global {quoted(name)}")
        self.push(Global(name))

    def call(self) -> None:
        function, arguments = self.last(2)
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Refused("a call of something else than a name")
        self.push(self.builders[function.name](*arguments))

    def build(self) -> None:
        """A state is given to objects of this project only, which have a `set_state` that checks it."""
        (state,) = self.last(1)
        if not hasattr(self.stack[-1], "set_state"):
            raise Refused("opcode BUILD")
        self.stack[-1].set_state(state)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Wrong("appends to something else than a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise _Wrong("sets items of something else than a dict")
        target.update(_pairs(items))

    def identify(self, identifier: Any) -> None:
        if self.persistent is None:
            raise Refused("opcode BINPERSID")
        self.push(self.persistent(identifier))

    def stack_global(self) -> None:
        module, name = self.last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Wrong("a global that is not named by strings")
        self.name(f"{module}.{name}")


def _value(argument: Any) -> Any:
    if isinstance(argument, int) and argument.bit_length() > _LARGEST_BITS:
        raise Refused(f"a number of {argument.bit_length()} bits")
    return argument


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    if not all(isinstance(key, (str, int)) for key in keys):
        raise Refused("a dict key that is neither a string nor a number")
    return dict(zip(keys, items[1::2], strict=True))


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "STOP": lambda m, _: None,
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.since_mark(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "DICT": lambda m, _: m.push(_pairs(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "APPEND": lambda m, _: m.append(m.last(1)),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "GLOBAL": lambda m, argument: m.name(argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, argument: m.identify(argument),
    "BINPERSID": lambda m, _: m.identify(m.last(1)[0]),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **{name: lambda m, index: m.memo.__setitem__(index, m.stack[-1]) for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{name: lambda m, index: m.push(m.memo[index]) for name in ("GET", "BINGET", "LONG_BINGET")},
}
