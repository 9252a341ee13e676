"""A `python` that starts at once: a fork of a process that has imported torch and the other large packages.

Tests that run the project's commands as they are written start some hundred scripts, each of which would import for six
CPU seconds. The server imports packages alone: every fork imports the project's own modules from the script's folder,
takes arguments, folder, environment and streams of the command, and ends with its exit code. Real interpreters are
started in tests/test_help.py, and here for everything but `python FILE.py` and `python -m benchmarks.NAME`.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PACKAGES = "torch torchvision timm pandas sklearn.linear_model scipy.stats matplotlib.pyplot safetensors.torch pydicom"

ACTIVATE = 'export VIRTUAL_ENV="{folder}" PATH="{folder}/bin:{bin}:$PATH"\n'

CLIENT = """\
#!{python} -SE
import json, os, socket, sys

words = sys.argv[1:]
if not words or not (words[0].endswith(".py") or words[0] == "-m" and words[1].startswith("benchmarks.")):
    os.execv("{python}", ["{python}", *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{address}")
    socket.send_fds(server, [b"-"], [0, 1, 2])
    server.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    status = int(server.makefile().read() or 1)
sys.exit(128 - status if status < 0 else status)
"""


@contextmanager
def warm_python(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Makes `folder` an environment to activate, whose `python` is fast as long as the block lasts.

    environment: variables that packages read when they are imported.
    """
    (folder / "bin").mkdir(parents=True)
    address = folder / "server"
    real = Path(sys.executable)
    (folder / "bin/activate").write_text(ACTIVATE.format(folder=folder, bin=real.parent), encoding="utf-8")
    (folder / "bin/python").write_text(CLIENT.format(python=real, address=address), encoding="utf-8")
    (folder / "bin/python").chmod(0o755)
    server = subprocess.Popen(
        [real, __file__, address], env=os.environ | environment, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        if server.stdout.readline() != "ready\n":
            raise RuntimeError("the server of warm_python did not start")
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()


def _serve(address: str) -> None:
    for name in PACKAGES.split():
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks that wait for the commands
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                break
            client.close()
    with client:
        _, streams, _, _ = socket.recv_fds(client, 1, 3)
        words, folder, environment = json.loads(client.makefile().read())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        command = os.fork()
        if command:
            client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])).encode())
            os._exit(0)
    _run(words, folder, environment, streams)


def _run(words: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Does as `python WORDS` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv = [sys.executable, *words]
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
