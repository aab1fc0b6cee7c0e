from types import SimpleNamespace

import pytest
import torch

from qat.errors import ProgramError
from qat.integer.calls import by_input_name, structured

X, Y = torch.zeros(1), torch.ones(2)


@pytest.mark.parametrize("given", [(X, Y), [X, Y], {"y": Y, "x": X}])
def test_inputs_come_by_position_or_by_name_and_go_on_in_the_order_of_the_names(given):
    found = by_input_name(["x", "y"], given)
    assert list(found) == ["x", "y"]
    assert (found["x"] is X, found["y"] is Y) == (True, True)


def test_a_tensor_alone_is_the_one_input():
    assert by_input_name(["x"], X)["x"] is X


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (X, "1 inputs given; the program takes 2: x, y"),
        ((X, Y, Y), "3 inputs given; the program takes 2: x, y"),
        (3, "inputs are a int; give a tensor, tensors by position, or tensors by input name"),
        ({"x": X}, "inputs x given; the program takes x, y"),
        ({"x": X, "y": Y, "z": Y}, "inputs x, y, z given; the program takes x, y"),
        ({"x": X, "y": [1.0]}, "input 'y' is a list; give a tensor"),
    ],
)
def test_other_inputs_are_refused(given, message):
    with pytest.raises(ProgramError, match=message):
        by_input_name(["x", "y"], given)


def test_outputs_come_in_the_structure_and_the_order_of_the_program():
    edges = (SimpleNamespace(name="b"), SimpleNamespace(name="a"))

    def found(structure, outputs=edges):
        return structured(SimpleNamespace(outputs=outputs, output_structure=structure), {"a": 1, "b": 2})

    assert list(found("dict").items()) == [("b", 2), ("a", 1)]
    assert found("tuple") == (2, 1)
    assert found("tensor", edges[1:]) == 1
