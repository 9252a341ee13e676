"""Tensors out of files that are not to be trusted: read without running anything, and checked before they are used."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cxr.files import InputError, place, printable, quoted

_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, Lightning and torch.compile put before every name."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file under their own names, out of `{"state_dict": ...}` and the like.

    Raises InputError when the file is missing, damaged, holds more than tensors, or no or several state dicts.
    """
    if not path.is_file():
        raise InputError(f"{place(path)}: no such file or folder of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # torch remarks on odd pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{place(path)}: not a readable safetensors file ({printable(str(error))})") from None
    except pickle.UnpicklingError as error:
        raise InputError(f"{place(path)}: {_more_than_tensors(path, str(error))}") from None
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes of torch's reader
        first_line = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{place(path)}: damaged or not a weights file ({printable(first_line)})") from None
    return _state_dict_in(content, path)


def _more_than_tensors(path: Path, error: str) -> str:
    """Tells a whole pickled model, as the published training leaves beside its `_weights.pt`, from a damaged file."""
    refused = re.search(r"Unsupported (?:global|class): (?:GLOBAL )?(\S{1,80})", error)
    if refused is None or refused[1].startswith("torch._utils."):  # of kinds of tensors that are not read
        return "holds more than tensors, or is damaged; only plain state dicts are read"
    weights = path.with_name(f"{path.stem}_weights{path.suffix}")
    there = f"{weights.name}, which lies beside it" if weights.is_file() else f"its state dict, {weights.name}"
    return (
        f"holds more than tensors ({quoted(refused[1])}): this is a whole pickled model, which is never executed; "
        f"give {there}"
    )


def _state_dict_in(content: object, path: Path) -> dict[str, Tensor]:
    """`content` itself, or its only entry that is a state dict."""
    if _is_state_dict(content):
        return dict(content)  # type: ignore[call-overload]
    entries: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
    inside = {name: entry for name, entry in entries.items() if _is_state_dict(entry) and entry}
    if len(inside) == 1:
        return dict(next(iter(inside.values())))
    what = names_shown(entries) if entries else quoted(content)
    if inside:
        raise InputError(f"{place(path)}: holds several state dicts ({names_shown(inside)}); save the one to use alone")
    raise InputError(f"{place(path)}: not a state dict (a mapping from names to tensors); found {what}")


def _is_state_dict(content: object) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )


def names_shown(entries: Mapping[Any, Any]) -> str:
    """The first names of a mapping, for a message."""
    shown = ", ".join(quoted(name) for name in list(entries)[:5]) or "nothing"
    return f"{shown}, ..." if len(entries) > 5 else shown


def plain_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Takes off the prefixes that wrappers put before all names, and `_orig_mod.` of compiled parts anywhere.

    Raises InputError when two tensors would then have one name.
    """
    names = list(state)
    while names and (common := next((w for w in _WRAPPERS if all(name.startswith(w) for name in names)), None)):
        names = [name.removeprefix(common) for name in names]
    plain = [name.replace("_orig_mod.", "") for name in names]
    if len(set(plain)) < len(plain):
        twice = next(name for i, name in enumerate(plain) if name in plain[:i])
        raise InputError(f"{place(path)}: two tensors are called {quoted(twice)}, with and without a wrapper's prefix")
    return dict(zip(plain, state.values(), strict=True))


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fills `model` with the tensors of `state`.

    Only BatchNorm's counters of batches, which nothing reads, may be missing.

    Raises InputError that names the first tensor that is missing, unknown, of another shape or kind, or not finite.
    """
    expected = model.state_dict()
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(".num_batches_tracked")}
    state = counters | dict(state)
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing:
        instead = f"; found {names_shown(dict.fromkeys(unknown))} instead" if unknown else ""
        raise InputError(f"{place(path)}: tensor {quoted(missing[0])} is missing{instead}")
    if unknown:
        raise InputError(
            f"{place(path)}: {len(unknown)} tensors that the network does not have, such as {quoted(min(unknown))}"
        )
    model.load_state_dict({name: _fitting(name, state[name], tensor, path) for name, tensor in expected.items()})


def _fitting(name: str, found: Tensor, wanted: Tensor, path: Path) -> Tensor:
    """`found` in the kind of number of `wanted`; shapes are compared before values, for a view may claim any shape."""
    where = f"{place(path)}: tensor {quoted(name)}"
    if found.layout != torch.strided or found.is_quantized or found.is_meta or found.is_nested:
        kind = "quantized" if found.is_quantized else "on no device" if found.is_meta else "sparse"
        raise InputError(f"{where} is {kind}; only dense tensors are read")
    if found.shape != wanted.shape:
        raise InputError(f"{where} has shape {tuple(found.shape)}, the network needs {tuple(wanted.shape)}")
    if found.is_complex() or found.is_floating_point() != wanted.is_floating_point() or found.dtype == torch.bool:
        raise InputError(f"{where} has numbers of kind {found.dtype}, the network needs {wanted.dtype}")
    found = found.to(wanted.dtype)
    if not found.isfinite().all():
        raise InputError(f"{where} holds NaN or infinite values; the weights are damaged")
    if name.endswith(".running_var") and (found < 0).any():
        raise InputError(f"{where} holds negative variances; the weights are damaged")
    return found
