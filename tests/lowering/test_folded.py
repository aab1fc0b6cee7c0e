"""Constants in the place of values: what is computed of them runs at once, in integers, and is a constant again."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from qat.inject.exact import grid_of
from qat.integer.program import Grid
from qat.lowering import elementwise, movement
from qat.lowering.folded import Constants, Folded, is_constant
from qat.lowering.state import CONSTANT, Quantized, QuantizedConstant, Unlowerable
from qat.quantizers import make_fake_quantize
from qat.spec import QuantSpec


class Handle:
    """What `Constants` needs of a handle: quantizers `name`, with a scale."""

    def __init__(self, **scales):
        spec = QuantSpec(bits=4, observer="minmax")  # codes -7 to 7
        self.quantizers = {name: make_fake_quantize(spec, name=name, role="activation") for name in scales}
        for name, quantizer in self.quantizers.items():
            quantizer.train()
            quantizer(torch.tensor([-7.0, 7.0]) * scales[name])
            quantizer.eval()


class Body(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def node_of(body):
    """The last node of a function of x (N, 2), N of any size."""
    exported = torch.export.export(Body(body), (torch.zeros(3, 2),), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    return [node for node in exported.graph.nodes if node.op == "call_function"][-1]


@pytest.fixture
def handle():
    return Handle(state=0.5, sums=1.0)


def state_of(handle, *numbers):
    return QuantizedConstant(torch.tensor([numbers]), handle.quantizers["state"])


def test_a_constant_stands_for_a_value_only_on_the_grid_of_one(handle):
    weight = make_fake_quantize(QuantSpec(), name="weight", role="weight")
    assert is_constant(state_of(handle, 1.0))
    assert not is_constant(QuantizedConstant(torch.ones(1), weight))
    assert not is_constant(torch.ones(1))
    assert not is_constant(1.0)


def test_constants_enter_as_values_with_a_batch_of_one(handle):
    constants, node = Constants(handle), node_of(lambda x: x + x)
    (x, other), options = constants.entered(node, (state_of(handle, 0.9, -2.0), 3), {"alpha": 1})
    assert x == Quantized("state", (2,), grid_of(handle.quantizers["state"]), "state")
    assert (other, options) == (3, {"alpha": 1})
    assert constants.codes["state"].tolist() == [[2, -4]]  # 1.8 and -4 steps of 0.5
    assert node.meta[CONSTANT]  # whose batch of one is no symbol


def test_what_moves_a_constant_gives_a_constant_on_the_same_grid(handle):
    constants, node = Constants(handle), node_of(lambda x: x.flip(1).reshape(-1, 1, 2))
    (x,), _ = constants.entered(node, (state_of(handle, 0.9, -2.0),), {})
    moved = constants.left(movement.reshape(constants.program, node, x))
    assert moved.tensor.tolist() == [[[1.0, -2.0]]]  # as the grid has it
    assert moved.quantizer is handle.quantizers["state"]


def test_what_computes_waits_for_its_quantizer_and_is_then_exact_in_every_code(handle):
    constants, node = Constants(handle), node_of(lambda x: x + x)
    (x, y), _ = constants.entered(node, (state_of(handle, 0.5, -2.0), state_of(handle, 2.0, -3.5)), {})
    waiting = constants.left(elementwise.add(constants.program, node, x, y))
    assert isinstance(waiting, Folded) and is_constant(waiting)
    sums = constants.finish(waiting, "sums")
    # 2.5 and -5.5 steps are 9.5 and 1.5 above the smallest code, where a sum rounds half to even: 10 and 2
    assert sums.tensor.tolist() == [[3.0, -5.0]]
    assert sums.quantizer is handle.quantizers["sums"]


def test_a_computation_that_waits_enters_the_next_as_it_is(handle):
    constants, node = Constants(handle), node_of(lambda x: (x + x).relu())
    (x,), _ = constants.entered(node, (state_of(handle, 2.0, -3.0),), {})
    waiting = constants.left(elementwise.add(constants.program, node, x, x))
    (pending,), _ = constants.entered(node, (waiting,), {})
    assert pending is waiting.pending
    clamped = constants.left(elementwise.relu(constants.program, node, pending))
    assert constants.finish(clamped, "sums").tensor.tolist() == [[4.0, 0.0]]


def test_several_results_leave_one_by_one_and_each_operation_runs_once(handle):
    constants, node = Constants(handle), node_of(lambda x: x.chunk(2, 1)[1])
    (x,), _ = constants.entered(node.args[0], (state_of(handle, 1.0, -2.0),), {})
    first, second = constants.left(movement.split(constants.program, node.args[0], x, 1, 1))
    assert (first.tensor.tolist(), second.tensor.tolist()) == ([[1.0]], [[-2.0]])
    assert constants.done == len(constants.program.operations) == 2


def test_a_constant_whose_batch_is_moved_is_refused(handle):
    constants = Constants(handle)
    moved = Quantized("state", (2,), Grid(0.5, 0, -7, 7), "state", batch_at=1)
    constants.codes["state"] = torch.zeros(1, 2, dtype=torch.int8)
    with pytest.raises(Unlowerable, match="it moves the batch of a constant"):
        constants.left(moved)
