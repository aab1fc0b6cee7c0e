from typing import NamedTuple

import pytest
import torch
from torch import nn

from qat.errors import AddressError, PreparationError
from qat.inject.inputs import bind_examples, input_paths, kinds_of, map_input, positional_names
from qat.inject.prepare import prepare
from qat.lowering.convert import convert


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class Any(nn.Module):
    def forward(self, x, pair=None, *rest, scale=None, **others):
        return x


def one(size=2):
    return torch.ones(size, 3)


def names_of(args, kwargs):
    return [name for name, _ in input_paths(Any().forward, args, kwargs)]


@pytest.mark.parametrize(
    ("args", "kwargs", "names"),
    [
        ((one(),), {}, ["x"]),
        ((), {"x": one()}, ["x"]),
        ((one(), (one(), [one()])), {}, ["x", "pair.0", "pair.1.0"]),
        ((one(), {"a.b": one(), 3: one()}), {}, ["x", "pair.a.b", "pair.3"]),
        ((one(), Pair(one(), one())), {}, ["x", "pair.left", "pair.right"]),
        ((one(), None, one(), one()), {}, ["x", "rest.0", "rest.1"]),
        ((one(),), {"scale": one(), "z": one()}, ["x", "scale", "z"]),
    ],
)
def test_every_input_has_a_name_by_which_it_is_reached(args, kwargs, names):
    assert names_of(args, kwargs) == names
    positions = positional_names(Any().forward)
    assert positions == ("x", "pair")
    for index, name in enumerate(names):
        new_args, new_kwargs = map_input(args, kwargs, name, positions, lambda x: x + 1)
        values = [int(leaf.mean()) for _, leaf in input_paths(Any().forward, new_args, new_kwargs)]
        assert values == [2 if position == index else 1 for position in range(len(names))]
        assert names_of(new_args, new_kwargs) == names


def test_an_input_that_was_not_passed_is_left_out():
    args, kwargs = map_input((one(),), {}, "pair", ("x", "pair"), lambda x: x + 1)
    assert len(args) == 1 and not kwargs


def test_what_tells_inputs_of_one_kind_from_others():
    kinds, names = kinds_of((one(), {"a": torch.tensor([1])}), {"y": one().to_sparse(), "z": None})
    assert kinds == [(2, True, torch.strided), (1, False, torch.strided), (2, True, torch.sparse_coo)]
    assert names == ("y", "z")


def test_a_batch_of_one_is_repeated_and_larger_ones_are_not():
    (x, (y,)), _ = bind_examples(Any(), (one(1), [one(1)]))
    assert x.shape == y.shape == (2, 3)
    (x, y), _ = bind_examples(Any(), (one(1), one(4)))
    assert x.shape == (1, 3) and y.shape == (4, 3)


def test_one_tensor_in_two_places_becomes_two():
    x = one()
    (first, second), _ = bind_examples(Any(), (x, x))
    assert first is x and second is not x and torch.equal(first, second)


@pytest.mark.parametrize(
    ("examples", "match"),
    [
        (torch.zeros(0, 3), r"shape \(0, 3\), an empty batch"),
        (torch.zeros(2, 3, dtype=torch.complex64), "dense real tensors"),
        (torch.eye(3).to_sparse(), r"input x is float32 of shape \(3, 3\) \(sparse_coo\), and .*module="),
        ({}, "hold no tensor but dict"),
        ((3,), "hold no tensor but tuple"),
    ],
)
def test_examples_that_cannot_be_recorded_are_refused(examples, match):
    with pytest.raises(PreparationError, match=match):
        bind_examples(Any(), examples)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_of_samples_of_several_lengths_are_refused():
    with pytest.raises(PreparationError, match="input x is a nested tensor of float32, and integers need dense real"):
        bind_examples(Any(), torch.nested.nested_tensor([torch.ones(2), torch.ones(1)]))


def test_examples_that_do_not_fit_name_the_class():
    with pytest.raises(PreparationError, match=r"do not fit Linear\.forward\(input.*: too many positional .*; pass a"):
        bind_examples(nn.Linear(3, 2), (one(), one()))


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((), {}, "missing a required argument: 'input'"),
        ((one(), one()), {}, "too many positional arguments"),
        ((one(),), {"mask": one()}, "got an unexpected keyword argument 'mask'"),
        ((one(),), {"input": one()}, "multiple values for argument 'input'"),
    ],
)
def test_arguments_that_a_prepared_network_does_not_take_name_its_forward(args, kwargs, reason):
    network = nn.Linear(3, 2)
    prepare(network, torch.ones(4, 3))
    with pytest.raises(AddressError, match=rf"^the inputs do not fit Linear\.forward\(input.*: {reason}; pass them as"):
        network(*args, **kwargs)


class Everything(nn.Module):
    """Real inputs in every place that a keyword can reach, and a number beside them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three, self.four = (nn.Linear(3, 4) for _ in range(4))

    def forward(self, x, nested, *, scale=None, count: int = 1, **others):
        return self.one(x) + self.two(nested["in.ner"][0]) + self.three(others["other"]) + self.four(scale)


def test_a_network_with_inputs_in_every_place_computes_what_its_program_computes():
    numbers = torch.Generator().manual_seed(3)
    x, inner, other, scale = (torch.randn(4, 3, generator=numbers) for _ in range(4))
    arguments = {"x": x, "nested": {"in.ner": (inner,)}, "other": other, "scale": scale, "count": 2}
    network = Everything()
    prepare(network, arguments)
    network(**arguments)
    network.eval()
    program = convert(network)
    assert [edge.name for edge in program.inputs] == ["x", "nested.in.ner.0", "scale", "other"]
    with torch.no_grad():
        expected = network(**arguments)
    assert torch.equal(program({"x": x, "nested.in.ner.0": inner, "other": other, "scale": scale}), expected)


def test_positional_and_starred_inputs_are_quantized():
    class Starred(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x, *rest):
            return self.one(x) + self.two(rest[0])

    network, inputs = Starred(), (torch.randn(4, 3), torch.randn(4, 3))
    handle = prepare(network, inputs)
    network(*inputs)
    assert {"input.x", "input.rest.0"} < set(handle.quantizers)
    network.eval()
    with torch.no_grad():
        assert torch.equal(convert(network)(inputs), network(*inputs))


def test_a_real_input_that_was_not_recorded_raises():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, shift=None):
            return self.linear(x) + (1.0 if shift is None else shift)

    network = Optional()
    prepare(network, torch.randn(4, 3))
    network(torch.randn(2, 3))
    with pytest.raises(AddressError, match=r"the input shift, float32 of shape \(2, 2\), was not there when"):
        network(torch.randn(2, 3), torch.randn(2, 2))
