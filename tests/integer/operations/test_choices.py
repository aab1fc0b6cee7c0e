import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, IndexRange

BYTE = Grid(0.5, 3, 0, 255)


def results(write, codes, grid, shape=None):
    """Codes and grids of what `write` names, for codes (N, ...) of one input."""
    codes = torch.as_tensor(codes)
    builder = ProgramBuilder()
    names = write(builder, builder.input("x", tuple(codes.shape[1:]), grid))
    names = (names,) if isinstance(names, str) else names
    for name in names:
        builder.output(f"out {name}", name)
    program = builder.build("dict")
    values = run(program, {"x": codes.to(grid.dtype)})
    return [(values[name], program.value(name).grid) for name in names]


def test_moves_by_hand():
    codes = [[[1, 2, 3], [4, 5, 6]]]
    ((taken, _),) = results(lambda b, x: b.take("t", x, 2, [2, 0, 0, 1]), codes, BYTE)
    assert taken.tolist() == [[[3, 1, 1, 2], [6, 4, 4, 5]]]
    ((wide, _),) = results(lambda b, x: b.expand("e", b.reshape("r", x, (2, 1, 3)), (2, 2, 3)), codes, BYTE)
    assert wide.tolist() == [[[[1, 2, 3]] * 2, [[4, 5, 6]] * 2]]

    def join(builder, x):
        return builder.concatenate("c", (builder.constant("k", torch.tensor([[7, 7, 7]]), BYTE), x), 1)

    ((joined, _),) = results(join, codes * 2, BYTE)
    assert joined.tolist() == [[[7, 7, 7], [1, 2, 3], [4, 5, 6]]] * 2


@pytest.mark.parametrize(
    "grid", [BYTE, Grid(0.5, -3, -128, 127), Grid(0.5, 1, 0, 15), Grid(0.5, 2, -7, 7), Grid(0.5, 0, 0, 4095)]
)
def test_negation_is_exact_and_its_own_inverse(grid):
    codes = torch.arange(grid.quant_min, grid.quant_max + 1)[None]

    def write(builder, x):
        return builder.negate("once", x), builder.negate("twice", "once")

    (once, mirrored), (twice, back) = results(write, codes, grid)
    assert torch.equal(once - mirrored.zero_point, -(codes - grid.zero_point).to(once.dtype))
    assert torch.equal(twice, codes.to(grid.dtype)) and back == grid


def test_selection_by_hand():
    def write(builder, x):
        mask = builder.constant("mask", torch.tensor([[1, 0, 1]]), MASK_GRID)
        other = builder.constant("other", torch.tensor([[9, 9, 9], [8, 8, 8]]), BYTE)
        return builder.select("s", mask, x, other), builder.select("t", mask, other, x)

    (first, grid), (second, _) = results(write, [[[1, 2, 3], [4, 5, 6]]], BYTE)
    assert first.tolist() == [[[1, 9, 3], [4, 8, 6]]] and grid == BYTE
    assert second.tolist() == [[[9, 2, 9], [8, 5, 8]]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([BYTE, Grid(0.5, 0, -2, 1), IndexRange(3)]),
    st.booleans(),
    st.integers(0, 2**30),
)
def test_the_first_of_equals_wins(dim, grid, largest, seed):
    generator = torch.Generator().manual_seed(seed)
    ends = (grid.quant_min, min(grid.quant_max, grid.quant_min + 3) + 1)  # few codes: many are equal
    codes = torch.randint(*ends, (3, 4, 5, 6), generator=generator)
    k = 1 + seed % codes.shape[dim]

    def write(builder, x):
        return builder.arg_max("a", x, dim, keepdim=True), *builder.top_k("k", x, dim, k, largest)

    (first, range_), (values, value_grid), (indices, index_range) = results(write, codes, grid)
    rows = codes.movedim(dim, -1).reshape(-1, codes.shape[dim]).tolist()
    sign = -1 if largest else 1
    ordered = [sorted(range(len(row)), key=lambda place: (sign * row[place], place))[:k] for row in rows]
    assert indices.movedim(dim, -1).reshape(-1, k).tolist() == ordered
    assert values.movedim(dim, -1).reshape(-1, k).tolist() == [
        [row[place] for place in places] for row, places in zip(rows, ordered, strict=True)
    ]
    assert first.movedim(dim, -1).flatten().tolist() == [row.index(max(row)) for row in rows]
    assert range_ == index_range == IndexRange(codes.shape[dim]) and value_grid == grid
    assert first.dtype == indices.dtype == torch.int64


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda b, x: b.take("t", x, 0, [0]), "the batch is dimension 0"),
        (lambda b, x: b.take("t", x, 1, [2]), "takes 2..2 of the 2 entries"),
        (lambda b, x: b.take("t", x, 1, [-1]), "takes -1..-1 of the 2 entries"),
        (lambda b, x: b.take("t", x, 1, []), "at least one"),
        (lambda b, x: b.take("t", x, 1, [[0]]), r"they are \(n,\)"),
        (lambda b, x: b.expand("e", x, (2, 6)), r"cannot expand \(2, 3\) to \(2, 6\)"),
        (lambda b, x: b.expand("e", x, (1, 2, 3)), "cannot expand"),
        (lambda b, x: b.arg_max("a", x, 0), "the batch is dimension 0"),
        (lambda b, x: b.arg_max("a", x, 3), "looks along dimension 3"),
        (lambda b, x: b.top_k("k", x, 1, 3), "takes 3 of the 2 entries"),
        (lambda b, x: b.top_k("k", x, 1, 0), "takes 0 of the 2 entries"),
        (lambda b, x: b.select("s", x, x, x), "has a mask 'x' on"),
        (lambda b, x: b.select("s", b.constant("m", torch.ones(1, 2), MASK_GRID), x, x), "cannot broadcast"),
        (
            lambda b, x: b.concatenate("c", (x, b.constant("k", torch.ones(2, 3), MASK_GRID)), 1),
            "put a Requantize between",
        ),
        (lambda b, x: b.negate("n", b.arg_max("a", x, 1)), "which are indices"),
        (lambda b, x: b.requantize("n", b.arg_max("a", x, 1), BYTE), "holds indices, which have no scale"),
        (lambda b, x: b.take("t", b.constant("k", torch.ones(2, 3), BYTE), 1, [0]), "only values can be its inputs"),
    ],
)
def test_what_does_not_fit_is_refused(write, message):
    with pytest.raises(ProgramError, match=message):
        results(write, [[[1, 2, 3], [4, 5, 6]]], BYTE)
