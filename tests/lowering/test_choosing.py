"""Codes chosen by masks and by their size, and places of the largest: the same in all three ways to run them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat

CONV = {"conv": nn.Conv2d(8, 8, 1)}
DIAGONAL = torch.eye(8).bool()
BODIES = {
    "where_with_a_number": (lambda net, x: torch.where(x > 0.3, x, 0.5), 512, {}),
    "where_with_a_constant": (lambda net, x: torch.where(x > 0.1, net.scale, x), 512, {}),
    "where_between_values": (lambda net, x: torch.where(DIAGONAL, x, net.parts["conv"](x)), 512, CONV),
    "where_of_both": (lambda net, x: torch.where((x > 0.1) & ~(x <= 0.4), x, 0), 512, {}),
    "where_of_either": (lambda net, x: torch.where((x > 0.5) | (x < 0.1), x, 0.0), 512, {}),
    "where_of_the_largest": (lambda net, x: torch.where(x == x.amax(1, keepdim=True), x, 0.0), 512, {}),
    "where_one_value_is_larger": (lambda net, x: torch.where(x > x.roll(1, 2), x, 0.0), 512, {}),
    "masked_fill": (lambda net, x: x.masked_fill(DIAGONAL, -0.7), 512, {}),
    "masked_fill_in_place": (lambda net, x: (x + 0.0).masked_fill_(x > 0.4, -0.5), 512, {}),
    "tril": (lambda net, x: x.tril(), 512, {}),
    "maximum": (lambda net, x: torch.maximum(net.parts["conv"](x), x.roll(1, 1)), 512, CONV),
    "maximum_broadcast": (lambda net, x: torch.maximum(x, x.mean((2, 3), keepdim=True)), 512, {}),
    "maximum_of_a_constant": (lambda net, x: torch.maximum(x - 0.5, net.scale * 0.1), 512, {}),
    "maximum_and_relu": (lambda net, x: F.relu(torch.maximum(x - 0.5, x.roll(1, 1))), 512, {}),
    "maximum_of_one_value": (lambda net, x: torch.maximum(y := x - 0.5, 0.1 * y), 512, {}),
    "minimum": (lambda net, x: torch.min(x, x.roll(1, 1)), 512, {}),
    "minimum_of_a_constant": (lambda net, x: torch.fmin(x, net.scale), 512, {}),
    "amin": (lambda net, x: x.amin((2, 3)), 8, {}),
    "max_along": (lambda net, x: x.max(1)[0], 64, {}),
    "min_along": (lambda net, x: x.min(1, keepdim=True).values, 64, {}),
    "topk": (lambda net, x: x.topk(3, 2)[0], 192, {}),
    "sort": (lambda net, x: x.sort(2)[0], 512, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_choices_lower_to_the_same_codes(name, assert_agreement):
    assert_agreement(*BODIES[name], "w8a8")


def test_two_functions_of_one_value_are_one_table(assert_agreement):
    program = assert_agreement(*BODIES["maximum_of_one_value"], "w8a8")
    assert [type(operation).__name__ for operation in program.operations] == ["Conv", "Table", "Reshape", "Linear"]


class Indexing(nn.Module):
    """A classifier that returns places of its logits."""

    def __init__(self, places):
        super().__init__()
        self.layer, self.places = nn.Linear(6, 9), places

    def forward(self, x):
        return self.places(self.layer(x))


@pytest.mark.parametrize(
    "places",
    [
        lambda logits: logits.argmax(-1),
        lambda logits: {"best": logits.argmax(1, keepdim=True), "worst": logits.argmin(1), "logits": logits},
        lambda logits: tuple(logits.topk(3)),
        lambda logits: logits.topk(2, largest=False)[1],
        lambda logits: tuple(logits.max(1)),
        lambda logits: logits.min(1).indices,
        lambda logits: torch.softmax(logits, -1).argmax(-1),
    ],
)
def test_places_of_the_largest_are_integers_of_the_program(places, tmp_path):
    torch.manual_seed(0)
    network, x = Indexing(copy.deepcopy(places)), torch.randn(64, 6)
    qat.prepare(network, x[:2])
    network(x)
    network.eval()
    program = qat.convert(network)
    with torch.no_grad():
        expected, given = network(x), program(x)
    for first, second in zip(*map(_leaves, (expected, given)), strict=True):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [x], module=network, repeats=0)
    assert report.float_ops == ()
    assert {name: entry.differing for name, entry in report.mismatches.items()} == {"onnxruntime": 0, "fake_quant": 0}


def _leaves(result) -> list:
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values()) if isinstance(result, dict) else list(result)
