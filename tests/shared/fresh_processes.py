"""Processes that start with the libraries imported: what dies or is interrupted runs in one of its own, within moments.

They are forked from a server that imports and does nothing else, so each is as fresh as a new interpreter.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

_IMPORTED = [
    "pytorch_lightning", "qat.callback", "qat.cli.train", "qat.lowering.convert", "onnx", "onnxruntime",
    "sklearn.datasets", "matplotlib.figure", "jinja2",
]  # fmt: skip


def start(code: str, *arguments: object, folder: Path) -> multiprocessing.Process:
    """A process that runs `code` as a script with these arguments, in one thread.

    `folder` is its working directory; what it prints is in the files `stdout` and `stderr` there.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    arguments = [str(argument) for argument in arguments]
    process = context.Process(target=_run, args=(code, arguments, str(folder)), daemon=True)
    process.start()
    return process


def finish(process: multiprocessing.Process, seconds: float = 100) -> int:
    """Its exit code, -N where signal N killed it. TimeoutError, and it is killed, after `seconds`."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the process is not finished after {seconds:g} seconds")
    return process.exitcode


def _run(code: str, arguments: list[str], folder: str) -> None:
    os.chdir(folder)
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    # the server ignores interrupts, as a shell does for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["script", *arguments]
    exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
