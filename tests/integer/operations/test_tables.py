import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.operations import MASK_GRID, table_codes
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid

SOURCE = Grid(0.5, 1, 0, 3)  # reals -0.5, 0, 0.5, 1
SIGNED = Grid(0.25, 2, -8, 7)


def built(write, shape, grid):
    builder = ProgramBuilder()
    name = write(builder, builder.input("x", shape, grid))
    builder.output("y", name)
    return builder.build(), name


def codes_after(write, shape, grid, codes):
    program, name = built(write, shape, grid)
    return run(program, {"x": torch.tensor(codes, dtype=grid.dtype)})[name].tolist()


def test_codes_are_rounded_half_to_even_shifted_and_clamped():
    points = torch.tensor([0.125, 0.375, -0.125, 100.0, -100.0, math.inf, -math.inf, 1.0], dtype=torch.float64)
    # steps 0.5 1.5 -0.5: ties to 0, 2, -0
    assert table_codes(points, SIGNED).tolist() == [2, 4, 2, 7, -8, 7, -8, 6]
    assert table_codes(points, SIGNED, 2, 5).tolist() == [2, 4, 2, 5, 2, 5, 2, 5]
    assert table_codes(points, SIGNED).dtype == torch.int8
    assert table_codes(points.reshape(2, 4), SIGNED).shape == (2, 4)


def test_a_function_that_gives_no_number_is_refused():
    with pytest.raises(ProgramError, match="NaN for 1 of the 2 codes"):
        table_codes(torch.tensor([0.0, math.nan], dtype=torch.float64), SIGNED)
    with pytest.raises(ProgramError, match="torch.float64"):
        table_codes(torch.tensor([0.0]), SIGNED)


def test_every_code_is_looked_up():
    table = torch.tensor([7, -8, 0, 3], dtype=torch.int8)
    assert codes_after(lambda b, x: b.table("t", x, table, SIGNED), (4,), SOURCE, [[3, 2, 1, 0], [0, 0, 3, 3]]) == [
        [3, 0, -8, 7],
        [7, 7, 3, 3],
    ]
    # the first entry is that of quant_min
    signed = Grid(1.0, 0, -2, 1)
    assert codes_after(lambda b, x: b.table("t", x, table, SIGNED), (4,), signed, [[-2, -1, 0, 1]]) == [[7, -8, 0, 3]]


def test_each_channel_has_its_own_table():
    table = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.int8)
    codes = [[[0, 1, 3], [0, 1, 3]]]
    assert codes_after(lambda b, x: b.table("t", x, table, SIGNED), (2, 3), SOURCE, codes) == [[[0, 1, 3], [3, 2, 0]]]


def test_indices_become_a_mask():
    mask = torch.tensor([0, 1, 1], dtype=torch.uint8)
    assert codes_after(lambda b, x: b.table("t", x, mask, MASK_GRID), (3,), IndexRange(3), [[2, 0, 1]]) == [[1, 0, 1]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**30), st.integers(-200, 0), st.integers(1, 300), st.integers(1, 3))
def test_wide_codes_and_any_ends(seed, low, high, channels):
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(1.0, 0, low, high)
    table = torch.randint(-8, 8, (channels, high - low + 1), generator=generator).to(torch.int8)
    codes = torch.randint(low, high + 1, (5, channels, 4), generator=generator)
    program, name = built(lambda b, x: b.table("t", x, table, SIGNED), (channels, 4), grid)
    actual = run(program, {"x": codes.to(grid.dtype)})[name]
    expected = torch.stack([table[channel][codes[:, channel] - low] for channel in range(channels)], 1)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.zeros(3, dtype=torch.int8), "a table of 3 codes for an input that takes 4"),
        (torch.zeros(4, dtype=torch.uint8), "must be torch.int8"),
        (torch.zeros(4), "must be torch.int8"),
        (torch.full((4,), 9, dtype=torch.int8), "reach 9..9, outside -8..7"),
        (torch.zeros(3, 4, dtype=torch.int8), "tables for 3 channels"),
        (torch.zeros(1, 1, 4, dtype=torch.int8), r"they are \(n,\) or \(C, n\)"),
        (torch.zeros(0, dtype=torch.int8), r"they are \(n,\) or \(C, n\)"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, message):
    with pytest.raises(ProgramError, match=message):
        built(lambda b, x: b.table("t", x, table, SIGNED), (2,), SOURCE)


WEIGHT = Weight(torch.tensor([[1, -2], [3, -4], [7, 0]], dtype=torch.int8), WeightGrid(4, 16), torch.full((3,), 0.25))


def test_an_embedding_gives_rows_of_the_kernel():
    program, name = built(lambda b, x: b.embedding("e", x, WEIGHT), (2,), IndexRange(3))
    assert program.value(name).grid == Grid(0.25, 0, -128, 127)
    assert run(program, {"x": torch.tensor([[2, 0]])})[name].tolist() == [[[112, 0], [16, -32]]]
    assert program(torch.tensor([[1, 1]])).tolist() == [[[12.0, -16.0]] * 2]
    (layer,) = program.layers
    assert (layer.kind, layer.weight_bits, layer.weight_count, layer.bytes) == ("Embedding", 4, 6, 3)
    assert program.float_bytes == 24 and [operation.name for operation in program.weighted()] == ["e"]


@pytest.mark.parametrize(
    ("grid", "weight", "message"),
    [
        (IndexRange(4), WEIGHT, "has 3 rows, but 'x' counts up to 4"),
        (SOURCE, WEIGHT, "codes of real numbers, not indices"),
        (IndexRange(3), Weight(WEIGHT.codes, WEIGHT.grid, torch.tensor([0.25, 0.5, 0.25])), "one scale for all rows"),
        (IndexRange(3), Weight(WEIGHT.codes[..., None], WEIGHT.grid, WEIGHT.scale), r"it is \(V, D\)"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(grid, weight, message):
    with pytest.raises(ProgramError, match=message):
        built(lambda b, x: b.embedding("e", x, weight), (2,), grid)
