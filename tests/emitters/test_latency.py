"""Times of files: the median of the runs behind the warm-up, all files in turn."""

from types import SimpleNamespace

import pytest
import torch

from qat.emitters import emitter_of, latency
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid

BYTE = Grid(0.5, 128, 0, 255)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a session runs, and the sessions that ran."""
    now, ran = [0.0], []

    def run_session(session, inputs):
        assert torch.get_num_threads() == 1
        ran.append((session, inputs))
        now[0] += next(durations[session])

    durations = {"fast": iter([9.0] * latency.WARM_UP + [0.001, 0.004, 0.002]), "slow": iter([0.5] * 6)}
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return SimpleNamespace(emitter=SimpleNamespace(run_session=run_session), ran=ran)


def test_the_median_of_what_runs_behind_the_warm_up_in_milliseconds(clock):
    sessions, samples = {"a": "fast", "b": "slow"}, {"a": {"x": 1}, "b": {"x": 2}}
    torch.set_num_threads(2)
    times = latency.median_times(clock.emitter, sessions, samples, repeats=3)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert times == {"a": pytest.approx(2.0), "b": pytest.approx(500.0)}
    assert clock.ran == [("fast", {"x": 1}), ("slow", {"x": 2})] * (latency.WARM_UP + 3)


def program_of(write):
    builder = ProgramBuilder()
    builder.output("y", write(builder, builder.input("x", (4,), BYTE)))
    return builder.build()


def test_a_program_without_softmax_norm_or_division_has_no_islands_to_time():
    program = program_of(lambda builder, x: builder.requantize("r", x, BYTE))
    assert latency.of_nonlinear(emitter_of("onnxruntime"), program, {"x": torch.zeros(1, 4)}, repeats=1) == {}


def test_both_forms_of_a_softmax_are_timed():
    program = program_of(lambda builder, x: builder.softmax("s", x, 1, Grid(2.0**-8, 0, 0, 255)))
    times = latency.of_nonlinear(emitter_of("onnxruntime"), program, {"x": torch.zeros(1, 4)}, repeats=2)
    assert set(times) == {"integer", "float_island"} and min(times.values()) > 0
