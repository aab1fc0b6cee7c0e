"""What one operation makes of values, constants and sizes: single nodes of exported graphs."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.export import Dim

import qat
from qat.inject.handle import handle_of
from qat.integer.program import Grid, MaxPool, Table, Transpose
from qat.lowering.chosen import Chosen
from qat.lowering.computed import computed, name_of
from qat.lowering.folded import Constants, Folded
from qat.lowering.pointwise import Mapped
from qat.lowering.sizes import PerSize
from qat.lowering.state import Pending, Program, Quantized, QuantizedConstant, Unlowerable
from qat.lowering.written_norms import MeanSquare

GRID = Grid(0.5, 1, 0, 3)  # -0.5, 0, 0.5, 1


class Body(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def node_of(body, *shape):
    """The last node of a function of x (N, *shape), N of any size."""
    x = torch.zeros(3, *(shape or (4,)))
    exported = torch.export.export(Body(body), (x,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    return [node for node in exported.graph.nodes if node.op == "call_function"][-1]


@pytest.fixture(scope="module")
def handle():
    network = nn.Sequential(nn.Linear(4, 4))
    qat.prepare(network, torch.randn(2, 4))
    network(torch.randn(8, 4))
    return handle_of(network)


@pytest.fixture
def program(handle):
    return Program(handle)


def value(program, *shape):
    return program.value(program.unique("x"), shape or (4,), GRID, "0.output")


def lowered(program, node, *args, **kwargs):
    return computed(program, Constants(program.handle), node, args, kwargs)


def test_names_are_those_of_operations_without_their_overload():
    assert name_of(node_of(lambda x: x.transpose(0, 1))) == "transpose"


def test_constants_alone_are_computed_at_once(program):
    node = node_of(lambda x: x + 1)
    assert lowered(program, node, torch.tensor([1.0, 2.0]), 1).tolist() == [2.0, 3.0]
    assert lowered(program, node, PerSize((5, 7, 5)), 1) == PerSize((6, 8, 6))
    assert program.operations == []


def test_dropout_of_a_constant_is_the_constant_and_what_is_drawn_is_refused(program):
    constant = torch.ones(4)
    assert lowered(program, node_of(lambda x: nn.functional.dropout(x, 0.5, False)), constant, 0.5, False) is constant
    for node, args in (
        (node_of(lambda x: torch.bernoulli(x)), (constant,)),
        (node_of(lambda x: nn.functional.dropout(x, 0.5, True)), (constant, 0.5, True)),
    ):
        with pytest.raises(Unlowerable, match="it draws random numbers"):
            lowered(program, node, *args)


def test_of_some_operands_only_the_shape_or_the_type_is_read(program):
    x = value(program, 4)
    filled = lowered(program, node_of(lambda x: torch.full_like(x, 2.0)), x, 2.0)
    assert [len(result) for result in filled.results] == [5, 7, 5]
    assert filled.results[0].unique().tolist() == [2.0]
    made = lowered(program, node_of(lambda x: x.new_full((2,), 3.0)), x, (2,), 3.0)
    assert made.tolist() == [3.0, 3.0] and made.dtype == torch.float32


def test_a_function_of_one_value_is_a_table_with_an_entry_for_each_code(program):
    pending = lowered(program, node_of(lambda x: x.exp()), value(program))
    assert pending.mapped.points.tolist() == torch.tensor([-0.5, 0.0, 0.5, 1.0], dtype=torch.float64).exp().tolist()
    operation = pending.build("name", "out", Grid(1.0, 0, 0, 255), 0, 255)
    assert isinstance(operation, Table) and operation.codes.tolist() == [1, 1, 2, 3]


def test_other_operations_are_made_by_their_rules(program):
    result = lowered(program, node_of(lambda x: nn.functional.max_pool1d(x, 2), 3, 4), value(program, 3, 4), [2])
    assert isinstance(result, Quantized) and result.shape == (3, 2)
    assert isinstance(program.operations[-1], MaxPool)


def test_results_know_where_the_network_has_the_batch(program):
    result = lowered(program, node_of(lambda x: x.transpose(0, 1), 3, 4), value(program, 3, 4), 0, 1)
    assert (result.shape, result.batch_at) == ((3, 4), 1)
    assert not any(isinstance(operation, Transpose) for operation in program.operations)
    moved_on = lowered(program, node_of(lambda x: x.transpose(0, 1).flip(2), 3, 4), result, [2])
    assert moved_on.batch_at == 1


def test_what_has_no_rule_is_refused_with_a_way_out(program):
    with pytest.raises(Unlowerable, match="apply it to the network's outputs"):
        lowered(program, node_of(lambda x: torch.logcumsumexp(x, 1)), value(program), 1)


def test_a_step_of_a_written_norm_waits_for_the_others(program):
    x = value(program)
    points = torch.tensor([-0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
    square = Pending((4,), None, mapped=Mapped(x, points.square()))
    assert lowered(program, node_of(lambda x: x.mean(-1)), square, -1) == MeanSquare(x, 1)


def test_constants_that_a_mask_chose_between_are_compared_but_not_computed_with(program):
    mask = Mapped(dataclasses.replace(value(program), grid=Grid(1.0, 0, 0, 1)), torch.tensor([False, True]))
    chosen = Chosen(mask, torch.tensor(1.0), torch.tensor(-1.0))
    assert lowered(program, node_of(lambda x: x > 0), chosen, 0).mapped.points.tolist() == [False, True]
    with pytest.raises(Unlowerable, match="constants that a mask of the inputs chose between"):
        lowered(program, node_of(lambda x: x.exp()), chosen)


def test_what_is_computed_of_constants_on_a_values_grid_is_such_a_constant(program, handle):
    state = QuantizedConstant(torch.zeros(1, 4), handle.quantizers["0.output"])
    assert isinstance(lowered(program, node_of(lambda x: x.exp()), state), Folded)
    moved = lowered(program, node_of(lambda x: x.reshape(-1, 2, 2)), state, [-1, 2, 2])
    assert isinstance(moved, QuantizedConstant) and moved.tensor.shape == (1, 2, 2)
    assert program.operations == []


def test_a_constant_beside_a_value_is_an_operand_of_it(program, handle):
    state = QuantizedConstant(torch.zeros(1, 4), handle.quantizers["0.output"])
    pending = lowered(program, node_of(lambda x: x + x), value(program), state)
    assert isinstance(pending, Pending)
    assert [constant.name for constant in program.constants] == ["0.output"]
