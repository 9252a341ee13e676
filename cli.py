"""What every script shares: one-line errors, `--help` with examples, the device, the seed, facts about the run."""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from cxr.files import InputError, printable

EXIT_BAD_INPUT = 2


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose `--help` ends with commands to copy, and whose mistakes are told in one line."""
    return _Parser(
        description=description,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Shows a default where there is one to show."""
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message} (--help shows examples)\n")


def add_device(to: argparse.ArgumentParser) -> None:
    to.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes CUDA where it is")


def add_seed(to: argparse.ArgumentParser) -> None:
    to.add_argument("--seed", type=_count, default=0, help="seed of every random draw")


def add_workers(to: argparse.ArgumentParser, most: int = 16) -> None:
    """most: of the default, for scripts that are rather slowed down by more."""
    default = min(usable_cores(), most)
    to.add_argument("--workers", "-pr", type=_count, default=default, help="processes that read films")


def _count(text: str) -> int:
    """A whole number from 0 on; torch and numpy take no larger one for a seed."""
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to {2**32 - 1}")
    return int(text)


def usable_cores() -> int:
    """Cores that this process may run on: a batch system gives a job some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(main: Callable[[Sequence[str] | None], int]) -> None:
    """Ends the process with main's exit code; a user's mistake becomes one line on stderr and exit code 2."""
    raise SystemExit(guarded(main))


def guarded(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Calls `main`, turning an expected failure into one line on stderr; returns the exit code."""
    try:
        return main(argv)
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:  # disk full, no permission: a fact about the machine, not about this code
        where = f"{error.filename}: " if error.filename else ""
        print(printable(f"error: {where}{error.strerror or error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def pick_device(name: str) -> str:
    """`auto` -> `cuda` where there is one, else `cpu`. Raises InputError when CUDA is asked for and missing."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is visible; use --device cpu or --device auto")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
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
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
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
