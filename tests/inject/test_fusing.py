"""Which calls become one table, and which run at the end of another kernel, read off the plan of small networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat


class Body(nn.Module):
    """Two convolutions and a learned number, and a body that calls them."""

    def __init__(self, body):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.slope = nn.PReLU(2)
        self.factor = nn.Parameter(torch.tensor([[[[0.7]]]]))
        self.offset = nn.Parameter(torch.ones(2, 1, 1))
        self.body = body

    def forward(self, x):
        return self.body(self, self.a(x))


def activations(body):
    handle = qat.prepare(Body(body), torch.randn(2, 2, 4, 4))
    return [name for name, site in handle.plan.sites.items() if site.role == "activation"][1:]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # one table however long: no quantizer inside of it
        (lambda n, x: F.gelu(x), ["a.output", "gelu.output"]),
        (lambda n, x: x * torch.sigmoid(x), ["a.output", "mul.output"]),
        (lambda n, x: x * F.relu6(x + 3) / 6, ["a.output", "div.output"]),
        (lambda n, x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))), ["a.output", "mul#4.output"]),
        (lambda n, x: F.relu(y := x.clone()) + y, ["a.output", "add.output"]),
        (lambda n, x: n.slope(x - 1), ["a.output", "slope.output"]),
        # what leaves values as they are is no end of it
        (lambda n, x: torch.exp(-F.dropout(x.contiguous()).float()).clone() + 1, ["a.output", "add.output"]),
        # numbers of one element belong to it, learned ones too
        (lambda n, x: torch.tanh(x * n.factor), ["a.output", "tanh.output"]),
        # constants of several do not
        (lambda n, x: torch.tanh(x * n.offset), ["a.output", "mul.output", "tanh.output"]),
        # nor does another value
        (lambda n, x: torch.tanh(x) * n.b(x), ["a.output", "tanh.output", "b.output", "mul.output"]),
        # nor the same one moved elsewhere
        (lambda n, x: torch.tanh(x) * x.transpose(2, 3), ["a.output", "tanh.output", "mul.output"]),
        # what is read outside is rounded, and read from there as well
        (lambda n, x: n.b(y := torch.tanh(x)) + y.square(), ["a.output", "tanh.output", "b.output", "square.output",
                                                             "add.output"]),
        # a single sum, product or clamp has a kernel of its own; relu runs in it, or in the one before
        (lambda n, x: F.relu(x * 2), ["a.output", "mul.output"]),
        (lambda n, x: F.relu6(x), ["a.output"]),
        # but what is part of a table is not, and reads codes
        (lambda n, x: (y := F.relu(x + n.b(x))) + y, ["a.output", "b.output", "add.output", "add#2.output"]),
        # and behind a table it is part of that
        (lambda n, x: F.relu(torch.tanh(x)), ["a.output", "relu.output"]),
    ],
)  # fmt: skip
def test_functions_of_one_value_are_rounded_once(body, expected):
    assert activations(body) == expected


def test_a_function_of_what_a_loop_carries_round_is_a_table_of_its_own():
    def body(net, x):
        for _ in range(3):
            x = net.b(x) * torch.sigmoid(x - 0.5)
        return x

    # sigmoid and the number before it are one table, whose root is what enters the loop or comes round
    assert activations(body) == ["a.output", "b.output", "sigmoid.output"]


def test_two_values_that_a_loop_carries_round_are_not_taken_for_one():
    def body(net, x):
        before = x
        for _ in range(3):
            before, x = x, torch.tanh(x) * torch.sigmoid(before)
        return x

    assert activations(body) == ["a.output", "tanh.output", "sigmoid.output"]


def test_a_number_behind_a_product_of_values_is_part_of_it_and_behind_a_layer_is_not():
    assert activations(lambda n, x: (x @ x.transpose(2, 3)) * 0.5) == ["a.output", "matmul.output"]
    assert activations(lambda n, x: (y := x @ x.transpose(2, 3)) * y.shape[1] ** -0.5) == ["a.output", "matmul.output"]
    assert activations(lambda n, x: n.b(x) * 0.5) == ["a.output", "b.output", "mul.output"]
    assert activations(lambda n, x: (x @ x.transpose(2, 3)) * -0.5) == ["a.output", "matmul.output", "mul.output"]


@pytest.mark.parametrize("name", ["reshape_as", "view_as"])
def test_a_tensor_whose_shape_alone_is_taken_has_a_grid_of_its_own(name):
    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x):  # (N, L, 4), normalized over N * L as LeViT does
            hidden = self.linear(x)
            return self.last(getattr(self.norm(hidden.flatten(0, 1)), name)(hidden))

    torch.manual_seed(0)
    network, x = Normalized(), torch.randn(8, 5, 4)
    network.norm.running_var.fill_(1e-2)
    handle = qat.prepare(network, x)
    with handle.observing_in_eval():
        network.eval()(x)
    ranges = {layer: float(handle.quantizers[f"{layer}.output"].scale) for layer in ("linear", "norm")}
    assert ranges["norm"] > 9 * ranges["linear"]
    assert torch.equal(network(x), qat.convert(network)(x))
