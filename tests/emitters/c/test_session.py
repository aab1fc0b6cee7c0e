"""Compiled sources: what is passed to them, and what they say to sizes that are wrong."""

import subprocess

import numpy
import pytest
import torch

from qat.emitters import c
from qat.emitters.c.compiler import STRICT, compile_source
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, float32

WATCHED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NARROW = Grid(float32(0.3), 2, 0, 15)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    builder = ProgramBuilder()
    x = builder.input("x", (3, 4), NARROW)
    pooled = builder.mean("mean", builder.add("twice", x, x, NARROW), (2,), NARROW)
    builder.output("y", pooled)
    path = tmp_path_factory.mktemp("session") / "model.c"
    c.emit(builder.build(), path)
    return path


def test_sizes_and_codes_that_are_wrong_are_error_codes(source):
    session = c.open_session(source)
    x, y = numpy.zeros((3, 4), numpy.uint8), numpy.zeros(3, numpy.uint8)
    assert session.call([x], [y]) == 0
    assert session.call([x[:2]], [y]) == 2 and session.call([numpy.zeros(13, numpy.uint8)], [y]) == 2
    assert session.call([x], [y[:2]]) == 2
    assert session.call([x + 16], [y]) == 4
    arena = session.interface.arena_bytes
    both = x.ctypes.data, x.nbytes, y.ctypes.data, y.nbytes
    room = numpy.zeros(arena // 8 + 1, numpy.int64)
    assert session.function(*both, room.ctypes.data, arena) == 0
    assert session.function(*both, room.ctypes.data, arena - 1) == 3
    assert session.function(*both, room.ctypes.data + 1, arena) == 3
    assert session.function(None, x.nbytes, *both[2:], room.ctypes.data, arena) == 1
    assert session.function(*both, None, arena) == 1


_MAIN = """
#include "{source}"
int main(void)
{{
    static model_arena_t arena;
    static {x};
    static uint8_t y[MODEL_Y_SIZE];
    return {call};
}}
"""


def test_an_array_of_another_size_does_not_compile(source, tmp_path):
    def errors(x, call="MODEL_RUN(x, y, arena)"):
        (tmp_path / "main.c").write_text(_MAIN.format(source=source, x=x, call=call))
        return compile_source(tmp_path / "main.c", tmp_path / "main", (*STRICT, *WATCHED))

    assert errors("uint8_t x[MODEL_X_SIZE]") == []
    assert subprocess.run([tmp_path / "main"]).returncode == 0
    assert "size of" in errors("uint8_t x[MODEL_X_SIZE - 1]")[0]
    assert "size of" in errors("uint8_t x[MODEL_X_SIZE + 1]")[0]
    assert "incompatible" in errors("int32_t x[3]")[0]
    # by pointers the compiler cannot know: nothing is read, and 2 is MODEL_ERROR_SIZE
    assert errors("uint8_t x[5]", "model_run(x, sizeof(x), y, sizeof(y), &arena, sizeof(arena))") == []
    assert subprocess.run([tmp_path / "main"]).returncode == 2


def test_a_batch_is_a_call_for_every_sample(source):
    session = c.open_session(source)
    x = torch.arange(2 * 12).reshape(2, 3, 4) * 0.2
    both = c.run_session(session, {"x": x})["y"]
    each = [c.run_session(session, {"x": sample[None]})["y"] for sample in x]
    assert both.shape == (2, 3) and torch.equal(both, torch.cat(each))
    with pytest.raises(ExportError, match=r"input 'x' has shape \(2, 4, 3\); it takes \(batch, \*\(3, 4\)\)"):
        c.run_session(session, {"x": x.transpose(1, 2)})


def test_files_that_are_missing_or_damaged_are_refused(source, tmp_path):
    with pytest.raises(ExportError, match="none.c does not exist, or is no file"):
        c.open_session(tmp_path / "none.c")
    (tmp_path / "model.c").write_text(source.read_text().replace("static const walk_t", "static walk_t", 1)[:-20])
    with pytest.raises(ExportError, match="model.h does not exist"):
        c.open_session(tmp_path / "model.c")
    (tmp_path / "model.h").write_text(source.with_suffix(".h").read_text())
    with pytest.raises(ExportError, match="model.c cannot be compiled .*; export the program again"):
        c.open_session(tmp_path / "model.c")


def test_conditions_name_the_compiler():
    conditions = c.session_conditions()
    assert set(conditions) == {"compiler", "flags", "processor"} and "-O3" in conditions["flags"]
