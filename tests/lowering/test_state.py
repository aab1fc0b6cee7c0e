import copy

import pytest
import torch
from torch import nn
from torch.export import Dim

import qat
from qat.errors import ProgramError
from qat.inject.handle import handle_of
from qat.integer.program import Gather, Grid, Reshape
from qat.lowering.state import Pending, Program, Unlowerable, batch_shape, module_path, source_line

GRID = Grid(0.5, 0, 0, 255)


class Inner(nn.Module):
    def forward(self, x):
        return x.relu() + x.reshape(-1)[0]


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(Inner())

    def forward(self, x):
        return self.network(x)


@pytest.fixture(scope="module")
def nodes():
    """Nodes of an exported graph by the name of their operation, dimension 0 of any size."""
    exported = torch.export.export(Outer(), (torch.zeros(3, 4),), dynamic_shapes=(({0: Dim.AUTO}),), strict=False)
    return {node.target.__name__: node for node in exported.graph.nodes if node.op == "call_function"}


def test_a_node_knows_its_module_its_line_and_its_shape(nodes):
    node = nodes["relu.default"]
    assert module_path(node) == "0"  # of the network, not of what export wraps around it
    assert source_line(node).startswith(f"{__file__}:")
    assert batch_shape(node) == (4,)


def test_a_node_without_its_batch_is_refused(nodes):
    with pytest.raises(Unlowerable, match="fixes or removes the batch dimension"):
        batch_shape(nodes["select.int"])


@pytest.fixture
def program():
    network = nn.Sequential(nn.Linear(3, 4))
    qat.prepare(network, torch.randn(2, 3))
    network(torch.randn(8, 3))
    return Program(handle_of(network))


def test_names_are_unique_even_where_a_layer_is_called_like_one_with_a_number(program):
    assert [program.unique(name) for name in ("mean", "mean#2", "mean", "mean")] == [
        "mean",
        "mean#2",
        "mean#3",
        "mean#4",
    ]


def test_a_pending_computation_gets_the_grid_and_the_bounds_of_what_stands_behind_it(program):
    made = {}

    def build(name, output, grid, clamp_min, clamp_max):
        made.update(grid=grid, limits=(clamp_min, clamp_max))
        return Reshape(name=name, source="", inputs=("x",), output=output, shape=(2, 2))

    result = program.finish(Pending((2, 2), build, low=0.0), "0.output")
    assert result.shape == (2, 2) and result.grid == made["grid"]
    assert made["limits"] == (made["grid"].zero_point, 255)
    viewed = program.finish(Pending((2, 2), build, view=(4,)), "0.output")
    assert viewed.shape == (4,)
    assert [operation.name for operation in program.operations] == ["0", "0#2", "0#2.reshape"]


def test_what_cannot_be_built_is_unlowerable(program):
    def build(*arguments):
        raise ProgramError("the scales lie too far apart.")

    with pytest.raises(Unlowerable, match="the scales lie too far apart$"):
        program.finish(Pending((4,), build), "0.output")


def test_what_cannot_be_moved_is_unlowerable_and_leaves_the_program_as_it_was(nodes, program):
    x = program.value("x", (4,), GRID, "0.output")
    with pytest.raises(
        Unlowerable, match=r"Gather '0\.gather' .*takes entries of 4 by 'x' on .*indices must lie inside$"
    ):
        program.join(nodes["relu.default"], (x, x), (4,), Gather, dim=1)
    assert program.operations == []


def test_constants_have_the_type_of_their_grid(program):
    constant = program.constant("k", GRID, torch.tensor([1, 2]))
    assert constant.codes.dtype == torch.uint8
    assert program.constants == [constant]
    assert copy.copy(constant).name == "k"
