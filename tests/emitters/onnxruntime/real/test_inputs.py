"""Random inputs to compare a file on."""

import pytest
import torch

from qat.emitters.onnxruntime.real.inputs import random_inputs
from qat.errors import ExportError
from qat.real.nodes import RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram


def looked_up(rows, count, positions=None):
    """Rows of a table of numbers, plus those of `positions` of them where that is given."""
    arguments = (("weight", Ref("table")), ("indices", Ref("ids")))
    nodes = [RealNode("row", "", "aten.embedding.default", arguments, "float32", ("batch", "length", 2))]
    constants = {"table": torch.ones(rows, 2)}
    if positions is not None:
        constants["positions"] = torch.ones(positions, 2)
        added = (("self", Ref("row")), ("other", Ref("positions")), ("alpha", 1))
        nodes.append(RealNode("sum", "", "aten.add.Tensor", added, "float32", ("batch", "length", 2)))
    return RealProgram(
        inputs=(RealInput("ids", "int64", ("batch", "length"), (2, 6), count),),
        outputs=(RealOutput("y", nodes[-1].name),),
        nodes=tuple(nodes),
        constants=constants,
    )


def shapes(program):
    return [tuple(inputs["ids"].shape) for inputs in random_inputs(program)]


def test_lengths_are_those_recorded_and_half_of_them():
    assert shapes(looked_up(50, 50)) == [(1, 6), (1, 3), (3, 6), (3, 3)]


def test_lengths_that_a_network_cannot_have_are_left_out():
    assert shapes(looked_up(50, 50, positions=6)) == [(1, 6), (3, 6)]


def test_integers_are_fewer_where_a_table_is_smaller_than_told():
    assert max(int(inputs["ids"].max()) for inputs in random_inputs(looked_up(50, 50))) > 1
    assert max(int(inputs["ids"].max()) for inputs in random_inputs(looked_up(2, 10**6))) <= 1
    assert max(int(inputs["ids"].max()) for inputs in random_inputs(looked_up(1, 10**6))) == 0


def test_a_network_that_takes_none_is_refused_with_what_it_says():
    with pytest.raises(ExportError, match=r"takes no random inputs .*\(The size of tensor a \(6\).*; give it other"):
        list(random_inputs(looked_up(50, 50, positions=5)))


def test_a_mistake_of_the_program_itself_is_not_taken_for_a_length(monkeypatch):
    def fails(program, inputs):
        raise KeyError("held")

    monkeypatch.setattr(RealProgram, "run", fails)
    with pytest.raises(KeyError, match="held"):
        list(random_inputs(looked_up(50, 50)))
