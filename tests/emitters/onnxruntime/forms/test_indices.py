"""Arithmetic of indices: equal in ONNX Runtime and the interpreter."""

import pytest
import torch

from qat.emitters.onnxruntime import emit_float, float_ops, open_session, run_session
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32


def test_positions_are_counted_and_choose_rows(assert_equal_in_both, tmp_path):
    rows = torch.randint(-8, 8, (9, 4), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(rows, WeightGrid(4, 16), torch.full((9,), 0.25))

    def write(builder, ids):
        known = builder.index_table("known", ids, [0, 1, 1, 1, 1])
        counted = builder.index_product("counted", builder.cumulative_sum("sums", known, 1), known)
        one = builder.constant("one", torch.tensor([1]), IndexRange(2))
        return builder.embedding("rows", builder.index_sum("positions", counted, one), weight), known

    program, path = assert_equal_in_both(write, [(7,)], [IndexRange(5)])
    assert not float_ops(path)
    emit_float(program, tmp_path / "float.onnx")
    ids = torch.randint(0, 5, (6, 7), generator=torch.Generator().manual_seed(0))
    reals = run_session(open_session(tmp_path / "float.onnx"), {"x0": ids})
    for name, expected in program(ids).items():
        assert torch.equal(reals[name], expected)


@pytest.mark.parametrize(
    "source", [Grid(float32(0.02), 100, 0, 255), Grid(float32(0.02), -5, -128, 127), IndexRange(9)]
)
@pytest.mark.parametrize(("shape", "dim"), [((5, 1, 7), 1), ((5, 6, 7), 1), ((2, 9, 3), 2), ((5, 6, 2), 3)])
def test_entries_are_gathered(assert_equal_in_both, source, shape, dim):
    _, path = assert_equal_in_both(
        lambda b, x, places: b.gather("g", x, places, dim), [(5, 6, 7), shape], [source, IndexRange((5, 6, 7)[dim - 1])]
    )
    assert not float_ops(path)
