"""What a source says of itself, read from the file."""

import pytest
import torch

from qat.emitters import c
from qat.emitters.options import FileOperation
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import table_codes
from qat.integer.values import Grid, Weight, WeightGrid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)


@pytest.fixture
def source(tmp_path):
    codes = torch.randint(-4, 4, (10, 7), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(codes, WeightGrid(3, 32), torch.full((10,), float32(0.001)))
    bias = torch.arange(10, dtype=torch.int32)
    builder = ProgramBuilder()
    x = builder.input("x", (7,), UNSIGNED)
    first = builder.linear("fc1", x, weight, SIGNED)
    table = builder.table("relu", first, table_codes(torch.linspace(0, 2, 256).double(), UNSIGNED), UNSIGNED)
    builder.output("y", builder.linear("fc2", builder.slice("front", table, (0,), (7,)), weight, SIGNED, bias=bias))
    path = tmp_path / "model.c"
    c.emit(builder.build(), path)
    return path


def test_operations_with_the_bytes_of_their_constants(source):
    # rows of 7 weights of 3 bits take 3 bytes; bias and multiplier 4 each, a shift 1; a layer_t has 19 fields of 4
    assert 10 * (3 + 4 + 4 + 1) + 19 * 4 == 196
    walk = 4 * (1 + 1 + 3)  # rank, one size, and a stride of each of three operands
    first, table, second = c.operations(source)
    assert first == FileOperation("fc1", "Linear", "uint8", 196)
    assert table == FileOperation("relu", "Table", "int8", 256 + walk)
    # weights, multipliers and shifts are those of the first
    assert second == FileOperation("fc2", "Linear", "uint8", 40 + 76)
    assert first.bytes + table.bytes + second.bytes == c.footprint(source).constants


def test_what_it_takes_of_a_processor(source):
    footprint = c.footprint(source)
    assert (footprint.inputs, footprint.outputs) == (7, 10)
    # fc1 makes 10 bytes beside 70 unpacked weights and 10 sums of int32, each from a multiple of 8 on
    assert footprint.arena == 16 + 72 + 40
    assert c.stored_bytes(source) == footprint.constants < source.stat().st_size


def test_an_integer_source_has_no_float_operation(source):
    assert c.float_ops(source) == []


@pytest.mark.parametrize(
    ("inserted", "found"),
    [
        ("static float unused_real(void) { return 0; }", "float in line"),
        ("static const int half = (int)(0.5 * 3);", "0.5 in line"),
        ("static const int many = (int)1e3;", "1e3 in line"),
        ("#include <math.h>", "math.h in line"),
    ],
)
def test_real_numbers_in_a_source_are_found(source, inserted, found):
    text = source.read_text()
    source.write_text(text.replace("/* -- the network -- */", inserted, 1))
    assert c.float_ops(source)[0].startswith(found)


def test_what_the_compiler_would_compute_in_floating_point_is_found(source):
    text = source.read_text()
    hidden = (
        "typedef __typeof__(sizeof(int) ? 1 : 1) whole_t;\nint real_sum(int x);\nint real_sum(int x) { return x + (int)"
    )
    source.write_text(text + hidden + "__builtin_sqrt(x); }\n")
    assert any("SSE" in line or "float" in line or "implicit" in line for line in c.float_ops(source))


def test_asking_for_the_helpers_of_the_header_is_found(source):
    source.write_text("#define MODEL_WITH_FLOAT\n" + source.read_text())
    assert c.float_ops(source) == ["MODEL_WITH_FLOAT in model.c"]
