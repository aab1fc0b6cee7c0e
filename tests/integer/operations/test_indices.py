import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.values import Grid, IndexRange

BYTE = Grid(0.5, 3, 0, 255)


def positions(builder, ids):
    """Positions of tokens that are no padding (0), as RoBERTa counts them: 1, 2, ... and 0 for padding."""
    known = builder.index_table("known", ids, [0, 1, 1, 1, 1])
    counted = builder.index_product("counted", builder.cumulative_sum("sums", known, 1), known)
    return builder.index_sum("positions", counted, builder.constant("one", torch.tensor([1]), IndexRange(2)))


def test_positions_by_hand():
    builder = ProgramBuilder()
    builder.output("y", positions(builder, builder.input("ids", (5,), IndexRange(5))))
    program = builder.build()
    values = run(program, {"ids": torch.tensor([[4, 2, 0, 1, 0], [0, 3, 3, 3, 3]])})
    assert values["known"].tolist() == [[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]]
    assert values["sums"].tolist() == [[1, 2, 2, 3, 3], [0, 1, 2, 3, 4]]
    assert values["positions"].tolist() == [[2, 3, 1, 4, 1], [1, 2, 3, 4, 5]]
    assert [program.value(name).grid.count for name in ("known", "sums", "counted", "positions")] == [2, 6, 6, 7]


def test_entries_are_gathered_by_indices():
    builder = ProgramBuilder()
    x = builder.input("x", (3, 2), BYTE)
    builder.output("y", builder.gather("last", x, builder.input("places", (1, 2), IndexRange(3)), 1))
    codes = torch.arange(12).reshape(2, 3, 2).byte()
    values = run(builder.build(), {"x": codes, "places": torch.tensor([[[2, 0]], [[1, 1]]])})
    assert values["last"].tolist() == [[[4, 1]], [[8, 9]]]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda b, x, i: b.index_table("t", x, [0]), "which are codes of real numbers"),
        (lambda b, x, i: b.index_table("t", i, [0, 1]), "a table of 2 for an input of 3 indices"),
        (lambda b, x, i: b.index_table("t", i, [0, 1, -1]), "reach -1..1"),
        (lambda b, x, i: b.index_table("t", i, [0, 1, 2], count=2), "reach 0..2, outside 0..1"),
        (lambda b, x, i: b.index_table("t", i, [[0, 1, 2]]), r"they are \(n,\)"),
        (lambda b, x, i: b.index_sum("s", i, x), "counts with 'x'"),
        (lambda b, x, i: b.index_sum("s", i, b.reshape("r", i, (2,))), "cannot broadcast"),
        (lambda b, x, i: b.cumulative_sum("c", i, 0), "the batch is dimension 0"),
        (lambda b, x, i: b.cumulative_sum("c", i, 3), "adds along dimension 3"),
        (lambda b, x, i: b.gather("g", x, i, 2), "takes entries of 2 by 'i'"),
        (lambda b, x, i: b.gather("g", x, x, 1), "indices must lie inside"),
        (lambda b, x, i: b.gather("g", x, i, 0), "cannot take"),
        (lambda b, x, i: b.gather("g", x, b.reshape("r", i, (2,)), 1), "cannot take"),
        (lambda b, x, i: b.gather("g", i, i, 2), "takes entries of 2"),
    ],
)
def test_what_does_not_fit_is_refused(write, message):
    builder = ProgramBuilder()
    with pytest.raises(ProgramError, match=message):
        write(builder, builder.input("x", (3, 2), BYTE), builder.input("i", (1, 2), IndexRange(3)))
