"""What `convert` refuses, keeps and names."""

import collections
import dataclasses
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError, ObservationError
from qat.schedule import QuantState


def body_of(function):
    """A body that is only this function of the value."""
    return lambda net, x: function(x)


class TwoInTwoOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 4)
        self.right = nn.Linear(3, 4)

    def forward(self, wide, narrow):
        left, right = self.left(wide), F.relu(self.right(narrow))
        return {"sum": left + right, "right": right}


def test_inputs_and_outputs_keep_their_names_and_structure():
    network = TwoInTwoOut()
    inputs = {"narrow": torch.randn(8, 3), "wide": torch.randn(8, 6)}
    handle = qat.prepare(network, {name: tensor[:2] for name, tensor in inputs.items()})
    network(**inputs)
    network.eval()
    program = qat.convert(network)
    assert sorted(edge.name for edge in program.inputs) == ["narrow", "wide"]
    assert [edge.name for edge in program.outputs] == ["sum", "right"]
    real, simulated = program(inputs), network(**inputs)
    assert torch.equal(real["sum"], simulated["sum"])
    assert torch.equal(real["right"], simulated["right"])
    assert handle.quantizers["right.output"].spec.signed is False


class Heads(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    aux: torch.Tensor | None = None


torch.export.register_dataclass(Result, serialized_type_name="tests.lowering.Result")


@pytest.mark.parametrize(
    ("returned", "structure", "names"),
    [
        (lambda a, b: (a, b), "tuple", ["output_0", "output_1"]),
        (lambda a, b: [a], "tuple", ["output_0"]),
        (lambda a, b: (a, None), "tuple", ["output_0"]),
        (Heads, "tuple", ["logits", "aux"]),
        (lambda a, b: collections.OrderedDict(second=b, first=a), "dict", ["second", "first"]),
        (lambda a, b: {0: a, "loss": None}, "dict", ["0"]),
        (Result, "dict", ["logits", "aux"]),
        (lambda a, b: Result(a), "dict", ["logits"]),
        (lambda a, b: (a, {"low": b}), "dict", ["output_0", "output_1.low"]),
        (lambda a, b: {"first": a, "levels": [None, (b,)]}, "dict", ["first", "levels.1.0"]),
        (lambda a, b: [Heads(a, b)], "dict", ["output_0.logits", "output_0.aux"]),
        (lambda a, b: Result(a, {"b": b}), "dict", ["logits", "aux.b"]),
        (lambda a, b: ((a,),), "dict", ["output_0.0"]),
    ],
)
def test_outputs_of_every_structure_have_names_and_agree(returned, structure, names, tmp_path):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 5), nn.Linear(4, 2)

        def forward(self, x):
            return returned(self.left(x), self.right(x))

    network, x = TwoHeads(), torch.randn(8, 4)
    qat.prepare(network, x)
    network(x)
    network.eval()
    program = qat.convert(network)
    assert program.output_structure == structure
    assert [edge.name for edge in program.outputs] == names
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [x], module=network, repeats=0)
    assert report.ok and report.mismatches["fake_quant"].differing == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda a: ({"b": a}, {"b": a, "c": 3}), "output 'output_1.c' is not on an integer grid: return values"),
        (lambda a: {"b": [a], "b.0": a}, "two inputs and outputs are named 'b.0'; give each a name of its own"),
        (lambda a: (a, 3), "output 'output_1' is not on an integer grid: return values that the network computes"),
        (lambda a: {"x": a}, "two inputs and outputs are named 'x'; give each a name of its own"),
    ],
)
def test_outputs_that_no_file_can_have_are_refused(returned, message):
    class OneHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 5)

        def forward(self, x):
            return returned(self.layer(x))

    network, x = OneHead(), torch.randn(8, 4)
    qat.prepare(network, x, target=None)  # a target refuses most of them already
    network(x)
    network.eval()
    with pytest.raises(ConversionError, match=message):
        qat.convert(network)


class Rows(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.layer, self.parts = nn.Linear(4, 3), parts

    def forward(self, x):
        rows = self.layer(x).flatten(0, 1)
        return rows.unflatten(0, (x.shape[0], -1)) if self.parts else rows


def test_an_output_with_a_dimension_merged_into_the_batch_is_refused_and_taken_apart_it_is_not():
    x = torch.randn(6, 5, 4)
    for parts in (False, True):
        network = Rows(parts)
        qat.prepare(network, x, target=None)
        network(x)
        network.eval()
        if parts:
            assert torch.equal(qat.convert(network)(x), network(x))
            continue
        with pytest.raises(
            ConversionError, match=r"another dimension merged .* as by \.unflatten\(0, \(x\.shape\[0\], -1"
        ):
            qat.convert(network)


def test_a_network_that_is_not_prepared_or_met_no_data_is_refused(trained_network):
    network, _ = trained_network(body_of(lambda x: x), 8 * 64, {})
    qat.inject.handle.handle_of(network).remove()
    with pytest.raises(ConversionError, match=r"not prepared; call qat\.prepare"):
        qat.convert(network)
    handle = qat.prepare(network, torch.randn(2, 3, 8, 8))
    with pytest.raises(ObservationError, match="met no data"):
        qat.convert(network)
    handle.set_state(QuantState(observe=False, fake_quantize=False))
    with pytest.raises(ConversionError, match="quantization is off"):
        qat.convert(network)


def test_what_has_no_integer_form_is_listed_with_module_and_line(trained_network):
    network, _ = trained_network(body_of(lambda x: x.cumprod(1)), 8 * 64, {})
    with pytest.raises(ConversionError, match=r"cumprod .* at .*test_convert\.py:\d+: multiply slices of it"):
        qat.convert(network)


def test_a_batch_size_that_was_fixed_is_told_apart_from_one_that_follows(trained_network):
    network, _ = trained_network(body_of(lambda x: x.reshape(len(x), -1)), 8 * 64, {})
    with pytest.raises(
        ConversionError, match=r"reshape in .* take that size from x.shape\[0\], since len\(x\) is a fixed"
    ):
        qat.convert(network)
    network, images = trained_network(body_of(lambda x: x.reshape(x.shape[0], -1)), 8 * 64, {})
    assert torch.equal(network(images), qat.convert(network)(images))


def test_what_reaches_no_output_is_left_out(trained_network):
    def body(net, x):
        net.parts["conv"](x).flatten(2)[:, 0]
        return x

    network, images = trained_network(body, 8 * 64, {"conv": nn.Conv2d(8, 8, 1)})
    program = qat.convert(network)
    assert [type(operation).__name__ for operation in program.operations] == ["Conv", "Reshape", "Linear"]
    assert torch.equal(network(images), program(images))


def test_a_branch_on_values_is_refused_in_one_sentence(trained_network):
    network, _ = trained_network(body_of(lambda x: x if x.mean() > 0 else x * 2.0), 8 * 64, {})
    with pytest.raises(ConversionError, match="torch.export cannot follow .* branches .* tensors only") as raised:
        qat.convert(network)
    assert len(str(raised.value)) < 600


def test_conversion_leaves_mode_and_weights_as_they_were(trained_network):
    parts = {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)}
    network, _ = trained_network(lambda net, x: net.parts["bn"](net.parts["conv"](x)), 4 * 64, parts)
    network.train()
    network.parts["bn"].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    qat.convert(network)
    assert network.training and not network.parts["bn"].training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_equal_networks_give_equal_files(trained_network, tmp_path):
    torch.manual_seed(1)
    parts = {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)}
    for name in ("one", "two"):
        body = lambda net, x: net.parts["bn"](net.parts["conv"](x))  # noqa: E731
        network, _ = trained_network(body, 4 * 64, parts, "w4a8")
        qat.convert(network).save(tmp_path / name)
    for file in ("program.json", "program.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
