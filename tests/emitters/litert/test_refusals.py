import pytest
import torch

from qat.emitters.litert import emit, refusals
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE = Grid(float32(0.02), 117, 0, 255)


def refused(write, shape=(4, 6, 6), grid=BYTE):
    builder = ProgramBuilder()
    builder.output("y", write(builder, builder.input("x", shape, grid)))
    return [str(refusal) for refusal in refusals(for_runtime(builder.build(), "litert"))]


def test_what_runs_is_not_refused():
    assert refused(lambda b, x: b.max("m", x, (1,))) == []


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda b, x: b.max_pool("m", x, (2, 2), dilation=(2, 2)), "dilation (here (2, 2)); use dilation 1"),
        (lambda b, x: b.float_island("f", "erf", {"input": x}, BYTE), "computed in real numbers, and everything"),
        (lambda b, x: b.requantize("r", x, Grid(float32(2e4), 0, 0, 255)), "look for a range that collapsed"),
    ],
)  # fmt: skip
def test_what_does_not_run_is_named_with_a_remedy(write, message):
    (sentence,) = refused(write)
    assert message in sentence and sentence.endswith(".")


def test_windows_over_three_dimensions_are_refused():
    sentences = refused(lambda b, x: b.max_pool("m", x, (2, 2, 2)), (4, 6, 6, 6))
    assert any("one or two dimensions" in sentence for sentence in sentences)


WIDE = Grid(0.5, 0, -(2**15) + 1, 2**15 - 1)


def test_wide_codes_around_another_zero_point_are_refused():
    wide = Grid(0.5, 9, 0, 2**16 - 1)
    (sentence, *_) = refused(lambda b, x: b.reshape("r", x, (144,)), grid=wide)
    assert "signed ones around 0 (these are 0..65535 with zero point 9); leave the activations' grids to" in sentence


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda b, x: b.softmax("s", x, 1, WIDE), "has no kernel of 16-bit codes for it; quantize"),
        (lambda b, x: b.requantize("r", x, BYTE), "one width ('r' has 8 bits beside others of 16); give"),
        (
            lambda b, x: b.mul("p", x, x, Grid(0.125, 0, -32767, 32767)),
            "rescales numbers to int32 (these reach 4.29e+09 steps)",
        ),
    ],
)
def test_what_has_no_kernel_of_wide_codes_is_named_with_a_remedy(write, message):
    assert any(message in sentence for sentence in refused(write, grid=WIDE))


def test_wide_codes_that_are_rescaled_as_floats_are_refused(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (4,), WIDE)
    builder.output("y", builder.mul("p", builder.add("s", x, x, WIDE), x, WIDE))
    with pytest.raises(ExportError, match="rescales 16-bit codes in fixed point; apply "):
        emit(builder.build(), tmp_path / "model.tflite")


def test_a_program_with_another_rounding_is_refused(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (4,), BYTE)
    total = builder.add("s", x, x, BYTE)
    builder.output("y", builder.mul("p", total, x, BYTE))
    with pytest.raises(ExportError, match="Add 's': LiteRT rounds additions half up; apply .* rounds a product before"):
        emit(builder.build(), tmp_path / "model.tflite")


def test_factors_that_kernels_do_not_take_are_refused():
    weight = Weight(torch.ones(3, 4, dtype=torch.int8), WeightGrid(8), torch.full((3,), 1e4))
    (sentence,) = refused(lambda b, x: b.linear("fc", x, weight, BYTE), (4,))
    assert "takes rescaling factors of 2^-32 to below 2^8" in sentence
