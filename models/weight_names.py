"""Names of weights: a path, or `hf://owner/repo[@revision][/file]`.

It imports nothing heavy, so that a mistyped name is refused at once.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from cxr.files import InputError, place, printable

PUBLISHED_REPO = "hf://patrick-w/MedicalPatchNet"

SAME_FILE = {
    "EfficientNetB0_weights.pt": "EfficientNetV2S_weights.pt",
    "EfficientNetV2S_weights.pt": "EfficientNetB0_weights.pt",
}
"""The published baseline is found under either name, whichever the repository or folder holds."""

TENSORS = "model.safetensors"
"""The file of tensors in a folder of weights, by which the folder may be named as well."""

HUB_SPEC = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>[^@]+))?/?")

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ALIKE = 0.75
"""Least similarity (difflib's ratio) of a mistyped name and the one that was meant."""


def is_hub_spec(name: str) -> bool:
    return name.startswith("hf:")


def local_weights(name: str | Path) -> Path:
    """The file or folder of this name, the published baseline's under either of its names.

    Raises InputError, with the name that may have been meant, when there is none.
    """
    path = Path(os.path.expanduser(name))  # not Path.expanduser, which raises for the home of an unknown user
    found = next((candidate for file in file_names(path.name) if _exists(candidate := path.parent / file)), None)
    if not str(name).strip() or found is None:
        raise InputError(
            f"{printable(str(name)) or 'an empty name'}: no such file or folder of weights; "
            f"{_meant_words(path) or f'{PUBLISHED_REPO}/FILE takes one from the hub'}"
        )
    return found


def check_repository(name: str) -> None:
    """Raises InputError unless `name`, which is not a folder, can be meant as a repository of the hub: `owner/repo`.

    One below a folder that is there, or one letter away from a folder that is, is a mistyped folder.
    """
    path = Path(os.path.expanduser(name))
    below = path.parent != Path() and path.parent.is_dir()
    meant = _meant_words(path)
    if below or meant or not _REPOSITORY.fullmatch(name):
        raise InputError(
            f"{place(name)}: no such folder of weights; {meant or 'a repository of the hub is named owner/repo'}"
        )


def weights_name(spec: str) -> str:
    """The name of the results of these weights: the last part of `spec`, without ending and revision."""
    repo = HUB_SPEC.fullmatch(spec) if is_hub_spec(spec) else None
    path = Path(repo["file"] or repo["repo"]) if repo else Path(os.path.expanduser(spec))
    if path.name in ("", ".."):
        path = path.resolve()
    if path.name == TENSORS and path.parent.name:
        path = path.parent
    return path.stem if path.suffix in (".pt", ".safetensors") else path.name


def file_names(file: str) -> list[str]:
    """The names under which a file may be found, its own first."""
    return [file, SAME_FILE[file]] if file in SAME_FILE else [file]


def _meant_words(path: Path) -> str:
    meant = _meant(path)
    return f"did you mean {printable(str(meant))}?" if meant else ""


def _meant(path: Path) -> Path | None:
    """A path that is there, and of which every part is alike; None where there is none, or the path itself is there."""
    found = Path(path.anchor)
    for part in path.parts[len(found.parts) :]:
        if part != ".." and not _exists(found / part):
            alike = difflib.get_close_matches(part, _listed(found), n=1, cutoff=_ALIKE)
            if not alike:
                return None
            part = alike[0]
        found = found / part
    return found if found != path else None


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # unlike Path.exists, also for names that are too long


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
