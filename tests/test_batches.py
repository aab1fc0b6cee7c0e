"""Inputs and targets of a batch, however it holds them, and inputs that a network takes and does not use."""

import pytest
import torch
from torch import nn

import qat
from qat.batches import input_names, real_inputs, split_batch, taken_by
from qat.errors import ConfigurationError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid

BYTE = Grid(0.5, 128, 0, 255)


def program_of(*inputs):
    builder = ProgramBuilder()
    values = [builder.input(name, (3,), BYTE) for name in inputs]
    builder.output("y", builder.requantize("y", values[0], BYTE))
    return builder.build()


def test_a_batch_is_split_into_inputs_and_targets():
    one, two = program_of("x"), program_of("a", "b")
    x, y = torch.zeros(1, 3), torch.ones(1)
    assert split_batch(one, x)[1] is None
    assert split_batch(one, [x, y])[1] is y
    assert split_batch(one, (x,)) == (x, None)
    assert split_batch(one, {"x": x, "label": y}) == ({"x": x}, y)
    assert split_batch(one, {"x": x}) == ({"x": x}, None)
    assert split_batch(two, (x, y)) == ((x, y), None)
    assert split_batch(two, ((x, x), y))[1] is y
    assert split_batch(two, (x, x, y)) == ((x, x), y)
    assert split_batch(two, {"a": x, "b": x, "label": y})[1] is y
    for wrong in ((x, y, y), (), 3):
        with pytest.raises(ConfigurationError, match="expected inputs or"):
            split_batch(one, wrong)
    for wrong in ({"image": x}, {"x": x, "label": y, "index": y}):
        with pytest.raises(ConfigurationError, match="expected x and at most one key of targets"):
            split_batch(one, wrong)


def test_a_batch_may_hold_inputs_that_the_program_does_not_take():
    x, extra, y = torch.zeros(1, 3), torch.zeros(1, 4), torch.ones(1)
    one, names = program_of("x"), ["extra", "x"]
    inputs, targets = split_batch(one, (extra, x, y), names)
    assert targets is y
    assert taken_by(one, names, inputs) == {"x": x}
    assert split_batch(one, (extra, x), names) == ((extra, x), None)
    assert taken_by(one, names, {"x": x, "extra": extra}) == {"x": x}
    assert taken_by(one, ["x"], x) is x
    assert taken_by(one, ["x"], {"x": x, "extra": extra}) == {"x": x}
    assert taken_by(one, ["x"], {"extra": extra}) == {"extra": extra}  # which the program refuses
    with pytest.raises(ConfigurationError, match="expected inputs or .*, with 2 inputs: extra, x"):
        split_batch(one, (x,), names)


def test_codes_at_an_edge_are_the_reals_that_the_network_takes():
    program = program_of("x")
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert real_inputs(program, x) is x
    coded = program.with_integer_edges("x")
    assert real_inputs(coded, torch.tensor([[126, 128, 133]], dtype=torch.uint8)).tolist() == [[-1.0, 0.0, 2.5]]


class Unused(nn.Module):
    """Takes three inputs and computes with one of them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, ids, x, extra):
        return self.last(self.first(x))


def test_a_network_with_inputs_that_reach_no_output_is_verified(tmp_path):
    network = Unused()
    inputs = torch.zeros(4, 5, dtype=torch.long), torch.randn(4, 3), torch.randn(4, 2)
    qat.prepare(network, inputs)
    network(*inputs)
    program = qat.convert(network.eval())
    assert input_names(program, network) == ["ids", "x", "extra"]
    assert input_names(program, None) == input_names(program, nn.Linear(3, 2)) == ["x"]
    qat.export(program, tmp_path / "model.onnx")
    named = dict(zip(("ids", "x", "extra"), inputs, strict=True))
    for batch in (inputs, (inputs, torch.zeros(4)), (*inputs, torch.zeros(4)), named):
        report = qat.verify(program, tmp_path / "model.onnx", [batch], module=network, repeats=0)
        assert report.mismatches["fake_quant"].differing == 0
