"""What TensorRT computes in real numbers: codes at most one off, and said to be real."""

import pytest
import torch

from qat.emitters.samples import random_inputs
from qat.emitters.tensorrt import IslandComparison, float_ops, islands_in, open_session, run_session
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, float32

SOURCE = Grid(float32(0.04), 0, -127, 127)
POSITIVE = Grid(float32(0.04), 0, 0, 127)
SHARE = Grid(float32(1 / 127), 0, 0, 127)


@pytest.mark.parametrize(
    ("write", "grids", "kinds"),
    [
        (lambda b, x, y: b.softmax("f", x, 2, SHARE), [SOURCE] * 2, {"Softmax", "Relu"}),
        (lambda b, x, y: b.log_softmax("f", x, 2, SOURCE), [SOURCE] * 2, {"LogSoftmax", "Clip"}),
        (lambda b, x, y: b.normalize("f", x, (2,), SOURCE), [SOURCE] * 2, {"LayerNormalization", "Clip"}),
        (
            lambda b, x, y: b.normalize("f", x, (1, 2), SOURCE, centered=False),
            [SOURCE] * 2,
            {"Mul", "ReduceMean", "Add", "Sqrt", "Div", "Clip"},
        ),
        (
            lambda b, x, y: b.divide("f", x, y, SOURCE),
            [SOURCE, POSITIVE],
            {"Equal", "Where", "Div", "Abs", "Add", "Floor", "Sign", "Mul", "Clip"},
        ),
    ],
)
def test_functions_of_real_numbers_are_listed_node_by_node(written, write, grids, kinds):
    program, path = written(write, [(3, 16)] * 2, grids)
    assert {entry.partition(" ")[0] for entry in float_ops(path)} == kinds
    assert islands_in(program, path) == ("f",)


def test_a_tie_of_a_division_goes_away_from_zero_and_a_divisor_of_zero_is_one_step(written):
    whole = Grid(1.0, 0, -127, 127)
    program, path = written(lambda b, x, y: b.divide("f", x, y, whole), [(5,)] * 2, [whole] * 2)
    real = {"x0": torch.tensor([[5.0, -5.0, 7.0, 3.0, 1.0]]), "x1": torch.tensor([[2.0, 2.0, -2.0, 0.0, 3.0]])}
    assert program(real)["y0"].tolist() == [[3.0, -3.0, -4.0, 3.0, 0.0]]
    assert run_session(open_session(path), real)["y0"].tolist() == [[3.0, -3.0, -4.0, 3.0, 0.0]]


def test_masked_scores_have_no_share(written):
    program, path = written(
        lambda b, x, mask: b.softmax("s", x, 2, SHARE, mask=mask), [(2, 8), (1, 8)], [SOURCE, MASK_GRID]
    )
    mask = torch.tensor([[[1.0, 0, 0, 0, 0, 0, 0, 0]], [[0.0] * 8]])
    shares = run_session(open_session(path), {"x0": torch.zeros(2, 2, 8), "x1": mask})["y0"]
    assert shares[0, 0].tolist() == [1.0] + [0.0] * 7 and not shares[1].any()


def test_what_follows_is_equal_on_the_codes_that_the_file_gave(written):
    def write(builder, x):
        normal = builder.normalize("norm", x, (2,), SOURCE)
        return builder.add("add", normal, x, SOURCE)

    program, path = written(write, [(3, 64)], [SOURCE])
    compared, session = IslandComparison(program, path), open_session(path)
    for inputs in random_inputs(program, sizes=(40,)):
        codes, expected = compared(inputs)
        assert codes.total == 40 * 3 * 64 and codes.largest <= 1
        assert torch.equal(run_session(session, inputs)["y0"], expected["y0"])
