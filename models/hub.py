"""Weights by name: a folder, a file, or `hf://owner/repo[@revision][/file]` from the Hugging Face hub.

`huggingface_hub` does the transfer: a progress bar, a cut connection resumed where it broke, and the cache,
`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` as everywhere else. What is in the cache is used from there
without asking the server, so that a second run needs no connection and a name keeps meaning the same weights; to move
on to newer ones, name their tag or commit after the `@`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cxr.files import InputError, printable, sha256
from cxr.names import REFERENCE
from models.weight_names import HUB_SPEC, TENSORS, file_names, is_hub_spec, local_weights

_FOLDER_FILES = ("config.json", TENSORS)
_TRANSPORT_ERRORS: tuple[type[Exception], ...] = HfHubHTTPError.__bases__  # its HTTP library's own error, and OSError

CONNECT_SECONDS = 5.0
"""After which a server that does not answer counts as unreachable; the library itself would try for half a minute."""


def resolve_weights(spec: str | Path) -> Path:
    """The local folder or file that `load_model` takes, downloaded first where `spec` names one on the hub.

    `hf://owner/repo` is a saved folder (`config.json`, `model.safetensors`, and `reference.npz` where there is one),
    `hf://owner/repo/file` one file. What was downloaded is checked against the sha256 that the hub recorded for it, and
    thrown away when it differs.

    Raises InputError when nothing is there, the download fails, or the content is not what was recorded.
    """
    if is_hub_spec(str(spec)):
        return _from_hub(str(spec))
    return local_weights(spec)


def _from_hub(spec: str) -> Path:
    match = HUB_SPEC.fullmatch(spec)
    if match is None:
        raise InputError(f"{printable(spec)}: expected hf://owner/repo[@revision][/file]")
    repo, revision, file = match["repo"], match["revision"], match["file"]
    a_folder = file in (None, _FOLDER_FILES[-1])
    with _one_line_errors(spec, repo, revision):
        weights = _folder(repo, revision) / _FOLDER_FILES[-1] if a_folder else _file(repo, revision, file)
    _verify(weights, spec)
    if a_folder and (weights.parent / REFERENCE).is_file():
        _verify(weights.parent / REFERENCE, spec)
    return weights.parent if a_folder else weights


def _file(repo: str, revision: str | None, file: str) -> Path:
    """The first of the file's names that is cached, else the first that the hub has."""
    names = file_names(file)
    for name in names:
        cached = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    for name in names[:-1]:
        try:
            return _download(repo, name, revision)
        except RemoteEntryNotFoundError:
            pass
    return _download(repo, names[-1], revision)


def _folder(repo: str, revision: str | None) -> Path:
    """The folder that holds both files of one and the same commit, and its reference of relative maps if it has one."""
    cached = [try_to_load_from_cache(repo, name, revision=revision) for name in _FOLDER_FILES]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    config = _download(repo, _FOLDER_FILES[0], revision)  # .../snapshots/<commit>/config.json
    commit = config.parent.name
    try:  # before the weights: with them the folder counts as complete
        _download(repo, REFERENCE, commit)
    except RemoteEntryNotFoundError:
        pass
    return _download(repo, _FOLDER_FILES[1], commit).parent


def _download(repo: str, name: str, revision: str | None) -> Path:
    if not constants.HF_HUB_OFFLINE and not _is_reachable(constants.ENDPOINT):
        raise LocalEntryNotFoundError(f"{constants.ENDPOINT} cannot be reached")
    return Path(hf_hub_download(repo, name, revision=revision))


def _is_reachable(address: str) -> bool:
    """Whether the server takes connections; one behind a proxy counts as reachable, for the proxy's errors say more."""
    url = urlsplit(address)
    host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
    if url.scheme in getproxies() and not proxy_bypass(host):
        return True
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def _one_line_errors(spec: str, repo: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"{spec}: access to this repository must be granted: ask for it at {constants.ENDPOINT}/{repo}, "
            "then set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{spec}: no repository {repo} at {constants.ENDPOINT}; check the name, or set HF_TOKEN if it is private"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{spec}: {repo} has no revision '{revision}'; leave @{revision} out for the newest") from None
    except LocalEntryNotFoundError:
        raise InputError(f"{spec}: not downloaded yet, and {_why_not_now()}") from None
    except RemoteEntryNotFoundError:
        raise InputError(f"{spec}: {_what_is_there(repo, revision)}") from None
    except _TRANSPORT_ERRORS as error:
        if getattr(error, "errno", None):  # a full disk, a cache that cannot be written: the machine's own words
            raise
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{spec}: the download failed ({first_line}); run the command again") from None
    except ValueError as error:
        raise InputError(f"{spec}: not a name that the hub knows ({str(error).splitlines()[0]})") from None


def _why_not_now() -> str:
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE=1 forbids it: run once with HF_HUB_OFFLINE=0, "
            f"or set HF_HOME to a cache that has it (now {constants.HF_HUB_CACHE} is used)"
        )
    return f"{constants.ENDPOINT} cannot be reached: check the connection, HF_ENDPOINT and the proxy settings"


def _what_is_there(repo: str, revision: str | None) -> str:
    try:
        files = HfApi().list_repo_files(repo, revision=revision)
    except _TRANSPORT_ERRORS:
        files = []
    weights = ", ".join(name for name in files if name.endswith((".pt", ".safetensors")))
    has = f"the weights there are {weights}" if weights else "there are no weights files at all"
    return f"no such file in {repo}; {has}; name one as hf://{repo}/FILE"


def _verify(path: Path, spec: str) -> None:
    """Compares the content with the sha256 by which the hub's cache names large files; removes what differs."""
    blob = path.resolve()
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):  # a plain copy, where the system cannot link
        return
    found = sha256(blob)
    if found != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise InputError(
            f"{spec}: the file differs from its recorded sha256 ({found[:12]}... instead of {blob.name[:12]}...); "
            "it was removed, run the command again to download it anew"
        )
