"""Shared by all scripts: one-line errors, `--help` with examples, types of options, device, seed, facts of a run.

It imports neither torch nor pandas: a script parses its options first and imports what is heavy afterwards, in `main`.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import platform
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cxr import __version__
from cxr.files import InputError, printable, quoted
from cxr.runs.memory import is_lack_of_memory
from models.weight_names import is_hub_spec, local_weights

EXIT_BAD_INPUT = 2

EXAMPLES = "examples (what lies in demo/ is there after ./runDemo.sh):"
"""Heading of the commands that end every `--help`."""


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose `--help` ends with commands to copy, and which reports a mistake in one line."""
    return _Parser(
        description=description,
        epilog=f"{EXAMPLES}\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )


class _HelpFormatter(argparse.HelpFormatter):
    """Paragraphs filled to the terminal's width, examples as they are, each option with its default."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES):
            return text
        paragraphs = (super(_HelpFormatter, self)._fill_text(part, width, indent) for part in text.split("\n\n"))
        return "\n\n".join(paragraphs)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Adds a default where there is one and the words do not name it; that of a switch is obvious."""
        words, default = action.help or "", action.default
        hidden = isinstance(default, bool) or default in (None, [], "", argparse.SUPPRESS) or "default" in words
        if hidden or not (action.option_strings or action.nargs in (argparse.OPTIONAL, argparse.ZERO_OR_MORE)):
            return action.help
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else f"{default}"
        return f"{words} (default: {shown.replace('%', '%%')})"  # argparse formats it with %

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """`NAME ...` instead of `NAME [NAME ...]`, for names can be lists of choices."""
        if action.nargs == argparse.ONE_OR_MORE:
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)


_to_lower: list[str] = []
"""Options of the script that runs, a lower value of which saves memory."""


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        _to_lower[:] = [option for option in ("--batch-size", "--workers") if option in self._option_string_actions]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> Any:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {printable(message)} (--help shows examples)\n")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Type of an option: a whole number in this range, both ends included."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a whole number from {least} to {most}")

    return parse


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Type of an option: a finite number in this range, both ends included; with `above`, without the lower one."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and least <= value <= most and not (above and value == least):
            return value
        words = f"{'above' if above else 'from'} {least:g} {'on' if most == math.inf else f'to {most:g}'}"
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a number {words}")

    return parse


def path(text: str) -> Path:
    """Type of an option: a path; the empty one, which would be the current folder, is refused."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a path")
    return Path(text)


def weights(text: str) -> str:
    """Type of an option: weights, a file or folder that is there or a name on the hub."""
    if not is_hub_spec(text):
        path(text)
        try:
            local_weights(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def existing_folder(text: str) -> Path:
    """Type of an option: a folder that is there."""
    folder = path(text)
    if not os.path.isdir(folder):  # unlike Path.is_dir, also for names that are too long
        raise argparse.ArgumentTypeError(f"{quoted(text)}: no such folder")
    return folder


def add_gone(to: argparse.ArgumentParser, replacements: Mapping[str, str]) -> None:
    """Options of the published script that are gone: passing one says what replaces it."""
    for option, replacement in replacements.items():
        to.add_argument(option, nargs="*", action=_Gone, const=replacement, help=argparse.SUPPRESS)


class _Gone(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        parser.error(f"{option} of the published script is gone: {self.const}")


def add_device(to: argparse._ActionsContainer) -> argparse.Action:
    words = "auto takes CUDA where there is a device"
    return to.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help=words)


def add_seed(to: argparse._ActionsContainer) -> argparse.Action:
    """torch and numpy accept no larger seed."""
    return to.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of all random numbers")


def add_fineness(to: argparse._ActionsContainer, default_stride: int) -> None:
    """--stride and --steps-per-patch, of which `saliency.evidence.fineness` makes sense."""
    add = to.add_mutually_exclusive_group().add_argument
    words = (
        f"evidence at every so many pixels, best an odd number, linear in between; 1: exact; default {default_stride}"
    )
    add("--stride", type=whole_number(1, 2**16), metavar="PIXELS", help=words)
    words = "instead of a stride: shifts of the patch grid per axis, a divisor of the patch size; published: 64"
    add("--steps-per-patch", type=whole_number(1, 2**16), metavar="STEPS", help=words)


def add_workers(to: argparse._ActionsContainer, most: int = 16) -> argparse.Action:
    """most: of the default, for scripts that more workers would rather slow down."""
    default = min(usable_cores(), most)
    words = "processes that read films; 0 reads in the main process"
    return to.add_argument("--workers", "-pr", type=whole_number(0, 1024), default=default, help=words)


def usable_cores() -> int:
    """Cores that this process may run on: a batch system gives a job some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Ends the process with main's exit code; a user's mistake becomes one line on stderr and exit code 2.

    Characters that the terminal's encoding lacks are printed as `\\u80ba`; results must not be lost to one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    raise SystemExit(guarded(main))


def guarded(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Calls `main`, turning an expected failure or a lack of memory into one line on stderr; returns the exit code."""
    _to_lower.clear()
    try:
        return main(argv)
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if is_lack_of_memory(error):
            way_out = f"lower {' or '.join(_to_lower)}" if _to_lower else "end other programs, or take a larger machine"
            print(f"error: out of memory; {way_out}", file=sys.stderr)
            return EXIT_BAD_INPUT
        if not isinstance(error, OSError):
            raise
        where = f"{error.filename}: " if error.filename else ""  # disk full, no permission: facts about the machine
        print(printable(f"error: {where}{error.strerror or error}"), file=sys.stderr)
        return 1


def pick_device(name: str) -> str:
    """Resolves `auto` to `cuda` where there is one, else `cpu`. Raises InputError for a device that is not there.

    On CUDA, convolutions of float32 are then computed in float32: torch's default, TF32, keeps 10 bits of the mantissa.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is visible; use --device cpu or --device auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: this machine or this torch has no Metal device; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return name


def set_seed(seed: int) -> None:
    """Seeds Python and torch; numpy is only used through generators that are seeded where they are made."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def run_facts(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """Command, arguments, seed, versions and device, as `run.json` records them."""
    packages = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", "pillow")
    return {
        "command": shlex.join(sys.orig_argv),
        "arguments": {name: _plain(value) for name, value in vars(arguments).items()},
        "seed": getattr(arguments, "seed", None),
        "versions": {"medicalpatchnet": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
        "device": _device_name(device),
        "cores": os.cpu_count(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({platform.processor() or platform.machine()})"
