"""Constants that are computed with the size of the batch or a length."""

import pytest
import torch

from qat.integer.lengths import Length
from qat.lowering.sizes import PerSize, collapsed, evaluate, follows, per_size, shorter
from qat.lowering.state import Unlowerable

LENGTH = Length("length", 12)
#: The batch in the three cases: two sizes, and the first again for shorter inputs.
BATCH = PerSize((5, 7, 5))


def test_a_length_is_the_recorded_one_twice_and_a_shorter_one():
    places = evaluate(torch.arange, (LENGTH,), {})
    assert [len(result) for result in places.results] == [12, 12, 6]
    assert [len(result) for result in evaluate(torch.arange, (2 * LENGTH + 1,), {}).results] == [25, 25, 13]


@pytest.mark.parametrize(("recorded", "expected"), [(2, 1), (3, 1), (12, 6), (13, 6)])
def test_the_shorter_length_is_half(recorded, expected):
    assert shorter(Length("length", recorded)) == expected


def test_what_is_the_front_of_the_longer_one_is_one_constant():
    places = evaluate(torch.arange, (LENGTH,), {})
    assert torch.equal(collapsed(places), torch.arange(12))
    mask = evaluate(lambda n: torch.ones(n, n).tril(), (LENGTH,), {})
    assert torch.equal(collapsed(mask), torch.ones(12, 12).tril())


def test_what_repeats_for_every_sample_broadcasts_over_the_batch():
    tokens = evaluate(lambda size, n: torch.arange(n).expand(size, n), (BATCH, LENGTH), {})
    assert torch.equal(collapsed(tokens), torch.arange(12)[None])


@pytest.mark.parametrize(
    "function", [lambda n: torch.arange(n).flip(0), lambda n: torch.arange(n) / n, lambda n: torch.ones(n).sum()]
)
def test_what_is_another_for_shorter_inputs_is_refused(function):
    with pytest.raises(Unlowerable, match="another for shorter inputs"):
        collapsed(evaluate(function, (LENGTH,), {}))


def test_what_differs_from_sample_to_sample_is_refused():
    with pytest.raises(Unlowerable, match="differs from sample to sample"):
        collapsed(evaluate(torch.arange, (BATCH,), {}))


def test_numbers_stay_apart_unless_they_are_equal():
    assert collapsed(PerSize((3, 3, 3))) == 3
    assert collapsed(PerSize((3, 3, 2))) == PerSize((3, 3, 2))


def test_lengths_and_cases_follow_and_numbers_do_not():
    assert follows(LENGTH)
    assert follows(BATCH)
    assert not follows(12)


def test_numbers_of_a_graph_are_lengths_where_they_follow_one():
    class Sizes(torch.nn.Module):
        def forward(self, x):
            return x.new_zeros(2 * x.shape[1] + 1), x.new_zeros(x.shape[0] * x.shape[1]), x.new_zeros(x.shape[1] ** 2)

    dims = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    exported = torch.export.export(Sizes(), (torch.zeros(3, 12),), dynamic_shapes=dims, strict=False)
    (x,) = (node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder")
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    affine, product, square = (node.meta["val"].shape[0] for node in output.args[0])
    lengths = {x.shape[1].node.expr: LENGTH}
    assert per_size(affine, lengths).describe() == "2*length+1"
    assert per_size(product, lengths) == PerSize((60, 84, 30))
    assert per_size(square, lengths) == PerSize((144, 144, 36))
