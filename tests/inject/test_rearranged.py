"""Functions that only move values, written in parts: torch's own values, moved alike, whatever the arguments."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qat.inject.rearranged import REARRANGED


def numbers(*shape):
    """0, 1, 2, ..., shuffled: no two are equal."""
    count = torch.Size(shape).numel()
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).double().view(shape)


X = numbers(2, 8, 4, 6)
CALLS = [
    (F.pixel_shuffle, (X, 2), {}),
    (torch.pixel_shuffle, (numbers(12, 2, 3), 2), {}),
    (F.pixel_unshuffle, (X, 2), {}),
    (torch.pixel_unshuffle, (X,), {"downscale_factor": 2}),
    (F.channel_shuffle, (X, 4), {}),
    (torch.channel_shuffle, (numbers(2, 6, 3), 2), {}),
    (F.native_channel_shuffle, (X, 2), {}),
    (F.unfold, (X, 2), {}),
    (F.unfold, (X, (2, 3)), {"dilation": (2, 1), "padding": (1, 2), "stride": (1, 2)}),
    (F.fold, (numbers(2, 12, 6), (4, 6), 2), {"stride": 2}),
    (F.fold, (numbers(1, 12, 4), (4, 6), (2, 3)), {"stride": (2, 3)}),
    (Tensor.unfold, (X, 3, 3, 2), {}),
    (Tensor.unfold, (X, -2, 2, 1), {}),
    (torch.tensor_split, (X, 3), {"dim": 1}),
    (Tensor.tensor_split, (X, (2, 5, -1), 3), {}),
    (torch.tensor_split, (X, (5, 2), 1), {}),
    (Tensor.tensor_split, (X, (2, 9), 1), {}),
    *((function, (X, 2), {}) for function in (torch.hsplit, Tensor.hsplit, torch.dsplit, Tensor.dsplit)),
    (torch.hsplit, (X, (1, 3)), {}),
    (Tensor.dsplit, (X, 1, 2), {}),
    (torch.vsplit, (X, 1), {}),
    (torch.hsplit, (X,), {"sections": 4}),
    (Tensor.hsplit, (X,), {"indices": (1, 3)}),
    (torch.tensor_split, (X,), {"sections": 3, "dim": -1}),
    (Tensor.tensor_split, (X,), {"indices": (1, 3), "axis": 1}),
    (torch.cat, ([X, X[:, :0]],), {"axis": 1}),
    (Tensor.vsplit, (X, (1,)), {}),
    *((function, ([X, X[..., :0], X + 500], -1), {}) for function in (torch.cat, torch.concat, torch.concatenate)),
    *((torch.rot90, (X, k, (2, 3)), {}) for k in range(-1, 5)),
    (Tensor.rot90, (X,), {"k": 1, "dims": [3, 1]}),
    (torch.fliplr, (X,), {}),
    (Tensor.fliplr, (X,), {}),
    (torch.hstack, ([X, X + 500],), {}),
    (torch.dstack, ((X, X + 500),), {}),
    (torch.diff, (X,), {}),
    (Tensor.diff, (X,), {"dim": 1}),
    (F.pad, (X, (1, 2)), {"value": 0.5}),
    (F.pad, (X, (1, 0, 2, 1), "constant", -3.0), {}),
    (torch.aminmax, (X,), {"dim": 2}),
    (Tensor.aminmax, (X,), {"dim": -1, "keepdim": True}),
    (torch.diagonal, (X, 1, 2, 3), {}),
    (Tensor.diagonal, (X,), {"offset": -2, "dim1": 3, "dim2": 1}),
    (torch.slice_scatter, (X, X[:, 2:5] + 500, 1, 2, 5), {}),
    (Tensor.slice_scatter, (X, X[..., 4:] + 500), {"dim": 3, "start": -2}),
    (torch.select_scatter, (X, X[:, 0] + 500, 1, -1), {}),
    (Tensor.select_scatter, (X, X[:, :, 0] + 500), {"dim": 2, "index": 1}),
    (torch.take_along_dim, (X, torch.tensor([[[[0], [3], [5], [1]]]]), 3), {}),
    (Tensor.take_along_dim, (X, torch.tensor([3, 0]).view(1, 1, 2, 1)), {"dim": -2}),
    (F.max_pool1d, (X.flatten(2), 3), {"padding": 1, "ceil_mode": True}),
    (torch.max_pool1d, (X.flatten(2), [4], [2]), {"dilation": 2}),
    (torch.topk, (X, 3), {}),
    (Tensor.topk, (X, 2), {"dim": 1, "largest": False}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_values_are_those_of_torch(function, args, kwargs):
    ours, theirs = REARRANGED[function](*args, **kwargs), function(*args, **kwargs)
    pairs = [(ours, theirs)] if isinstance(theirs, Tensor) else list(zip(ours, theirs, strict=True))
    for own, expected in pairs:
        assert torch.equal(own, expected)


def test_every_function_is_called_here():
    assert {function for function, _, _ in CALLS} == set(REARRANGED)


def test_of_equals_the_first_is_the_largest():
    values, indices = REARRANGED[torch.topk](torch.tensor([[1.0, 2.0, 2.0, 0.0]]), 2)
    assert (values.tolist(), indices.tolist()) == ([[2.0, 2.0]], [[1, 2]])


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (F.unfold, (numbers(8, 4, 6), 2), {}),
        (F.fold, (numbers(2, 12, 6), (4, 6), 2), {"stride": 1}),
        (torch.tensor_split, (X, torch.tensor([2])), {}),
        (torch.hsplit, (numbers(6), 2), {}),
        (torch.hsplit, (X, X.shape[1] + 1), {}),
        (torch.hstack, ([numbers(3)],), {}),
        (torch.cat, ([X, X], 1), {}),
        (torch.cat, ([X[:0], X[:0]], 1), {}),
        (torch.diff, (X,), {"n": 2}),
        (torch.diff, (X,), {"prepend": X[..., :1]}),
        (F.pad, (X, (1, 1)), {"mode": "reflect"}),
        (F.pad, (X, (1, 1)), {}),
        (F.pad, (X, (1, 1)), {"value": -torch.inf}),
        (torch.aminmax, (X,), {}),
        (torch.diagonal, (X,), {}),
        (torch.slice_scatter, (X, X[:, ::2], 1), {"step": 2}),
        (torch.take_along_dim, (X, torch.tensor([3])), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_written_in_parts_stays_what_it_is(function, args, kwargs):
    assert REARRANGED[function](*args, **kwargs) is NotImplemented


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_windows_of_any_kind_are_those_of_torch(data):
    kernel, spread, amount, step = (
        tuple(data.draw(st.integers(low, high)) for _ in range(2)) for low, high in ((1, 3), (1, 2), (0, 2), (1, 3))
    )
    x = numbers(2, 3, data.draw(st.integers(5, 7)), data.draw(st.integers(5, 7)))
    assert torch.equal(REARRANGED[F.unfold](x, kernel, spread, amount, step), F.unfold(x, kernel, spread, amount, step))
