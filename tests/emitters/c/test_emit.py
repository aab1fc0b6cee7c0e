"""Both files of an export: what is in them, what is refused, and that they are there whole or not at all."""

import errno
import logging
import subprocess

import pytest
import torch

from qat.emitters import ExportOptions, c
from qat.emitters.c import compiler
from qat.emitters.c.session import header_of, read_interface
from qat.emitters.c.source import write_sources
from qat.emitters.c.trial import run_in_process
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.lengths import Length
from qat.integer.operations import FloatIsland
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)


def image_program(names=("image", "conv", "scores")):
    image, conv, scores = names
    builder = ProgramBuilder()
    x = builder.input(image, (3, 6, 6), UNSIGNED)
    codes = torch.randint(-8, 8, (4, 3, 3, 3), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(codes, WeightGrid(4, 16), torch.full((4,), float32(0.003)))
    y = builder.conv(conv, x, weight, SIGNED, padding=((1, 1), (1, 1)), module="features.0")
    builder.output(scores, builder.mean("mean", y, (2, 3), SIGNED))
    return builder.build()


def test_two_files_of_one_export_lie_beside_each_other(tmp_path):
    c.emit(image_program(), tmp_path / "model.c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.c", "model.h"]
    source = (tmp_path / "model.c").read_text()
    assert '/* Conv "conv" from "features.0": (3, 6, 6) -> (4, 6, 6) */' in source
    assert "u8_s8(&conv_window, &conv_layer, 1" in source
    assert "softmax" not in source and "unpack_2_bits" not in source  # only what is used
    assert max(map(len, source.splitlines())) <= 120


def test_equal_programs_give_equal_bytes():
    first, second = (write_sources(image_program(), "model") for _ in range(2))
    assert first == second


def test_names_begin_with_that_of_the_file_and_are_all_different(tmp_path):
    program = image_program(("run", "int", "9 a/b"))
    c.emit(program, tmp_path / "my net-2.c")
    interface = read_interface(tmp_path / "my net-2.c")
    assert interface.prefix == "my_net_2"
    assert [port.identifier for port in (*interface.inputs, *interface.outputs)] == ["run", "x9_a_b"]
    assert "#define MY_NET_2_X9_A_B_SIZE 4" in header_of(tmp_path / "my net-2.c").read_text()
    c.check_edges(c.open_session(tmp_path / "my net-2.c"), program, "my net-2.c")


def test_names_that_end_comments_or_strings_are_names_all_the_same(tmp_path):
    program = image_program(('*/ "image" /*', "// conv \\", "größe??/"))
    c.emit(program, tmp_path / "model.c")
    assert [operation.name for operation in c.operations(tmp_path / "model.c")] == ["// conv \\", "mean"]
    assert read_interface(tmp_path / "model.c").inputs[0].name == '*/ "image" /*'


def test_names_that_would_meet_are_told_apart(tmp_path):
    builder = ProgramBuilder()
    names = ["a.b", "A b", "a b bytes", "arena", "memory", "error", "constant", "has", "class", "add_u8_u8_u8_s32"]
    total, *others = (builder.input(name, (2,), UNSIGNED) for name in names)
    for index, other in enumerate(others):
        total = builder.add(f"sum{index}", total, other, UNSIGNED)
    builder.output("a/b", total)
    c.emit(builder.build(), tmp_path / "model.c")
    (tmp_path / "main.cc").write_text('#include "model.h"\nint main() { return MODEL_OK; }\n')
    flags = ("-x", "c++", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-pedantic")
    errors = compiler.compile_source(tmp_path / "main.cc", tmp_path / "main", flags)
    assert not errors or "cc1plus" in errors[0]  # a compiler of C alone


def test_the_source_is_of_one_length(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (Length("length", 12), 4), UNSIGNED)
    builder.output("y", builder.mean("mean", x, (1,), SIGNED))
    program = builder.build()
    c.emit(program, tmp_path / "model.c")
    session = c.open_session(tmp_path / "model.c")
    c.check_edges(session, program, "model.c")
    x = torch.randn(3, 12, 4)
    assert torch.equal(c.run_session(session, {"x": x})["y"], program(x))


def test_images_may_have_channels_last(tmp_path):
    program = image_program()
    c.emit(program, tmp_path / "model.c", ExportOptions(channels_last=True))
    assert "copy" not in (tmp_path / "model.c").read_text().split("int model_run")[1]
    x = torch.randn(5, 3, 6, 6)
    assert torch.equal(c.run_session(c.open_session(tmp_path / "model.c"), {"image": x})["scores"], program(x))


def test_edges_that_carry_codes(tmp_path):
    program = image_program().with_integer_edges("*")
    c.emit(program, tmp_path / "model.c")
    session = c.open_session(tmp_path / "model.c")
    x = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    actual = c.run_session(session, {"image": x})["scores"]
    assert actual.dtype == torch.uint8 and torch.equal(actual, program(x))
    with pytest.raises(ExportError, match="another program: .* codes of real numbers; export the program to it"):
        c.check_edges(session, image_program(), "model.c")


def test_labels_are_in_the_header(tmp_path):
    c.emit(image_program(), tmp_path / "model.c", ExportOptions(labels=("cat", "dog")))
    assert '#define MODEL_LABELS {"cat", "dog"}' in (tmp_path / "model.h").read_text()


def test_a_header_of_another_source_does_not_compile(tmp_path):
    c.emit(image_program(), tmp_path / "model.c")
    (tmp_path / "model.h").write_text(write_sources(image_program(("image", "other", "scores")), "model").header)
    with pytest.raises(ExportError, match="model.h belongs to another source; take both files of one export"):
        c.open_session(tmp_path / "model.c")


def test_what_has_no_form_is_refused_before_anything_is_written(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (4,), UNSIGNED)
    builder.output("y", builder.float_island("angle", "sin", {"input": x}, SIGNED, module="decoder"))
    (refusal,) = c.refusals(builder.build())
    assert str(refusal).startswith("FloatIsland 'angle' (from decoder): it is computed in real numbers")
    with pytest.raises(ExportError, match="FloatIsland 'angle'"):
        c.emit(builder.build(), tmp_path / "model.c")
    with pytest.raises(ExportError, match="model.h does not end in .c"):
        c.emit(image_program(), tmp_path / "model.h")
    assert not list(tmp_path.iterdir())


def test_every_operation_but_islands_has_a_form():
    from qat.emitters.c.forms import FORMS
    from qat.integer.operations import OPERATIONS

    assert set(OPERATIONS) - set(FORMS) == {FloatIsland}


def test_a_program_with_the_rounding_of_another_runtime_is_refused():
    builder = ProgramBuilder()
    x = builder.input("x", (4,), UNSIGNED)
    builder.output("y", builder.mul("product", builder.add("sum", x, x, UNSIGNED), x, SIGNED))
    found = c.refusals(for_runtime(builder.build(), "litert"))
    assert [refusal.name for refusal in found] == ["sum", "product"]
    assert c.refusals(for_runtime(for_runtime(builder.build(), "litert"), "c")) == []


def test_without_a_compiler_the_files_are_written_and_that_is_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(c, "find_compiler", lambda: None)
    with caplog.at_level(logging.WARNING, "qat"):
        c.emit(image_program(), tmp_path / "model.c")
    assert "there is no C compiler, so that model.c is written but was not run" in caplog.text
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    with pytest.raises(ExportError, match="there is no C compiler to run the source with; install gcc or clang"):
        c.open_session(tmp_path / "model.c")


def test_a_source_with_other_codes_gets_no_name(tmp_path, monkeypatch):
    right = write_sources(image_program(), "model")
    wrong = right.source.replace(".zero_point = -5, .low", ".zero_point = -6, .low")
    assert wrong != right.source
    monkeypatch.setattr(c, "write_sources", lambda *_: type(right)(wrong, right.header, right.interface))
    with pytest.raises(ExportError, match="the C source gives other codes than the program for .* of output 'scores'"):
        c.emit(image_program(), tmp_path / "model.c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", [0, 1])
def test_a_disk_that_is_full_leaves_both_old_files(tmp_path, monkeypatch, failing):
    c.emit(image_program(), tmp_path / "model.c")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = []

    def full(handle):
        written.append(handle)
        if len(written) > failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("qat.files.os.fsync", full)
    with pytest.raises(ExportError, match="cannot be written .No space left on device"):
        c.emit(image_program(("image", "other", "scores")), tmp_path / "model.c")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_numbers_in_real_units_for_callers_that_have_them(tmp_path):
    """The helpers behind MODEL_WITH_FLOAT compute what the program's edges do."""
    program = image_program()
    c.emit(program, tmp_path / "model.c")
    (tmp_path / "main.c").write_text(
        """
        #define MODEL_WITH_FLOAT
        #include "model.c"
        #include <stdio.h>
        int main(void)
        {
            static model_arena_t arena;
            static uint8_t image[MODEL_IMAGE_SIZE];
            static int8_t scores[MODEL_SCORES_SIZE];
            static float real[MODEL_IMAGE_SIZE];
            int i;
            while (fread(real, sizeof(real), 1, stdin) == 1) {
                for (i = 0; i < MODEL_IMAGE_SIZE; i++)
                    image[i] = (uint8_t)model_quantized(real[i], MODEL_IMAGE_SCALE, MODEL_IMAGE_ZERO_POINT,
                        MODEL_IMAGE_MIN, MODEL_IMAGE_MAX);
                if (MODEL_RUN(image, scores, arena) != MODEL_OK)
                    return 1;
                for (i = 0; i < MODEL_SCORES_SIZE; i++) {
                    const float score = model_real(scores[i], MODEL_SCORES_SCALE, MODEL_SCORES_ZERO_POINT);
                    fwrite(&score, sizeof(score), 1, stdout);
                }
            }
            return 0;
        }
        """
    )
    assert compiler.compile_source(tmp_path / "main.c", tmp_path / "main", (*compiler.STRICT, "-O1")) == []
    real = torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    real[0].view(-1)[:40] = (torch.arange(40) - 110.5) * torch.tensor(UNSIGNED.scale)  # ties
    result = subprocess.run([tmp_path / "main"], input=real.numpy().tobytes(), capture_output=True, check=True)
    actual = torch.frombuffer(bytearray(result.stdout), dtype=torch.float32).reshape(20, 4)
    assert torch.equal(actual, program(real))


def test_indices_in_and_out(tmp_path):
    builder = ProgramBuilder()
    ids = builder.input("ids", (5,), IndexRange(300))
    builder.output("sums", builder.cumulative_sum("sums", ids, 1))
    program = builder.build()
    c.emit(program, tmp_path / "model.c")
    ids = torch.randint(0, 300, (4, 5))
    actual = run_in_process(tmp_path / "model.c", {"ids": ids})["sums"]
    assert actual.dtype == torch.int64 and torch.equal(actual, ids.cumsum(1))
