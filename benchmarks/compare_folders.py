"""Compares two folders of results or weights byte by byte: is a change of the code a change of the numbers?

    python -m benchmarks.compare_folders before/results after/results
    python -m benchmarks.compare_folders before/savedModels after/savedModels --ignore config.json README.md

`run.json`, `training.json` and `history.jsonl` hold times and are left out unless `--all` is given.
Prints every file that is missing or differs, with the first line that differs of a text; exit code 1 where one is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cli
from cxr.files import InputError, sha256

OF_THE_MOMENT = ("run.json", "training.json", "history.jsonl", ".lock")
"""Files that say when and how fast, and so differ from run to run."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    ignored = () if args.all else (*OF_THE_MOMENT, *args.ignore)
    before, after = (_files(folder, ignored) for folder in (args.before, args.after))
    lines = [f"only in {args.before}: {name}" for name in sorted(before.keys() - after.keys())]
    lines += [f"only in {args.after}: {name}" for name in sorted(after.keys() - before.keys())]
    both = sorted(before.keys() & after.keys())
    different = [name for name in both if sha256(before[name]) != sha256(after[name])]
    lines += [f"differs: {name}{first_difference(before[name], after[name])}" for name in different]
    for line in lines:
        print(line)
    print(f"{len(both) - len(different)} files are the same bytes, {len(lines)} are missing or differ")
    return 1 if lines else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.compare_folders before/results after/results")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--ignore", nargs="+", default=[], metavar="NAME", help="files of these names are left out too")
    parser.add_argument("--all", action="store_true", help="leave nothing out")
    return parser.parse_args(argv)


def _files(folder: Path, ignored: Sequence[str]) -> dict[str, Path]:
    """Relative path -> file. Raises InputError when there is none."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found = {name: path for name, path in found.items() if path.name not in ignored}
    if not found:
        raise InputError(f"{folder}: no files to compare in this folder")
    return found


def first_difference(before: Path, after: Path) -> str:
    """The first line in which two text files differ, for a message; sizes of files that are not text."""
    try:
        texts = [path.read_text(encoding="utf-8").splitlines() for path in (before, after)]
    except UnicodeDecodeError:
        return f" ({before.stat().st_size} and {after.stat().st_size} bytes)"
    for number, (old, new) in enumerate(zip(*texts, strict=False), start=1):
        if old != new:
            return f", line {number}:\n  - {old[:160]}\n  + {new[:160]}"
    return f" ({len(texts[0])} and {len(texts[1])} lines)"


if __name__ == "__main__":
    cli.run(main)
