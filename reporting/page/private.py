"""Texts as a page may show them that is sent around: no absolute paths, which hold user names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath

_PART = r"""[^\s/\\:;,'"<>()|]+"""
_OUTSIDE = re.compile(
    rf"""(?<![^\s=:;,'"<>()|])                                     # where a path can begin
    (?: (?:file:/*|[A-Za-z]:(?=[/\\])|~[\w.-]*(?=[/\\]))? (?:[/\\]+{_PART})+ [/\\]?
      | (?:[\w.-]+/)*\.\./(?:{_PART}[/\\]?)* )""",
    re.VERBOSE,
)
_HOME = re.compile(r"^(?:[A-Za-z]:)?[/\\](?:home|Users)[/\\][^/\\]+[/\\]*$", re.IGNORECASE)


def without_paths(text: str, *folders: Path) -> str:
    """The text with every path that is absolute, or leaves its folder, cut to its last part.

    Paths below one of `folders` start with its name. Only there are paths with blanks recognised; a command's are by
    `command_without_paths`.
    """
    known = {str(path) for folder in folders for path in (folder, folder.resolve()) if path.is_absolute()}
    for folder in sorted(known - {"/"}, key=len, reverse=True):
        text = text.replace(folder, _last(folder))
    return _OUTSIDE.sub(lambda found: _last(found.group()), text)


def command_without_paths(command: str) -> str:
    """A shell command whose absolute paths, quoted ones too, are cut to their last part."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that does not end
        return without_paths(command)
    shown = [_word(word) for word in words]
    return command if shown == words else shlex.join(shown)


def _word(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={_word(value)}"
    return shown_path(word)


def shown_path(path: str) -> str:
    """A path as it is when it stays below its folder, else its last part."""
    outside = path.startswith(("/", "~", "\\", "file:")) or re.match(r"[A-Za-z]:[/\\]", path)
    return _last(path) if outside or ".." in PurePosixPath(path).parts else path


def _last(path: str) -> str:
    """The name of a path; that of a home folder, which is a user's, becomes `~`."""
    if _HOME.match(path.removeprefix("file://")):
        return "~"
    return PureWindowsPath(path.rstrip("/\\")).name or path  # knows both kinds of slash
