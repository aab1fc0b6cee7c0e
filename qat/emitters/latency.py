"""How long exported files take, beside one another."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from qat.integer.program import IntegerProgram

#: Runs before those that count; the first ones allocate.
WARM_UP = 3


def beside_float(
    emitter,
    program: IntegerProgram,
    session,
    samples: Mapping[str, Mapping[str, Tensor]],
    repeats: int,
    name: str = "model.onnx",
) -> dict[str, float]:
    """Median milliseconds of the file of `session` ("integer") and of the float network behind it ("float").

    samples: inputs by name for each of the two. name: of a file of the runtime.
    """
    with tempfile.TemporaryDirectory() as folder:
        float_path = Path(folder) / name
        emitter.emit_float(program, float_path)
        sessions = {"integer": session, "float": emitter.open_session(float_path)}
    return median_times(emitter, sessions, samples, repeats)


def of_nonlinear(emitter, program: IntegerProgram, sample: Mapping[str, Tensor], repeats: int) -> dict[str, float]:
    """Median milliseconds with softmax, normalization and division as integers and as float islands.

    Empty where the program has none of them.
    """
    if emitter.islands_of(program, "integer") == emitter.islands_of(program):
        return {}
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for nonlinear in ("integer", "float_island"):
            path = Path(folder) / f"{nonlinear}.onnx"
            path.write_bytes(emitter.build(program, nonlinear))
            sessions[nonlinear] = emitter.open_session(path)
    return median_times(emitter, sessions, dict.fromkeys(sessions, sample), repeats)


def median_times(
    emitter, sessions: Mapping[str, object], samples: Mapping[str, Mapping[str, Tensor]], repeats: int
) -> dict[str, float]:
    """Median milliseconds of one run of each session, on one thread, in turn. samples: inputs by name for each."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    with _one_thread():
        for _ in range(WARM_UP):
            for name, opened in sessions.items():
                emitter.run_session(opened, samples[name])
        for _ in range(repeats):
            for name, opened in sessions.items():
                start = time.perf_counter()
                emitter.run_session(opened, samples[name])
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch, whose sessions have those of the process; the sessions of other runtimes have their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
