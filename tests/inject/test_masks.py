import math

import pytest
import torch

from qat.inject.masks import left_out, mask_of, masked
from qat.inject.operations import operation_of

SCORES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
UPPER = torch.tensor([[False, True], [False, False]])
LOWEST = torch.finfo(torch.float32).min


def found(function, *args, **kwargs):
    return mask_of(operation_of(function), args, kwargs, lambda tensor: tensor is SCORES)


@pytest.mark.parametrize("low", [-math.inf, LOWEST, -1e9, -1e4, -100.0, torch.tensor(-1e9)])
@pytest.mark.parametrize(
    "call",
    [
        lambda low: found(torch.masked_fill, SCORES, UPPER, low),
        lambda low: found(torch.Tensor.masked_fill, SCORES, UPPER, value=low),
        lambda low: found(torch.Tensor.masked_fill_, SCORES, mask=UPPER, value=low),
        lambda low: found(torch.where, UPPER, low, SCORES),
        lambda low: found(torch.where, UPPER.logical_not(), SCORES, low),
        lambda low: found(torch.where, condition=UPPER, input=low, other=SCORES),
        lambda low: found(torch.add, SCORES, torch.zeros(2, 2).masked_fill(UPPER, low)),
        lambda low: found(torch.Tensor.__add__, torch.zeros(2, 2).masked_fill(UPPER, low), SCORES),
        lambda low: found(torch.Tensor.add_, SCORES, other=torch.zeros(2, 2).masked_fill(UPPER, low)),
    ],
)
def test_every_spelling_of_a_mask_leaves_the_same_scores_out(call, low):
    assert call(low).tolist() == UPPER.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda: found(torch.masked_fill, SCORES, UPPER, 0.0),
        lambda: found(torch.masked_fill, SCORES, UPPER, -1.0),
        lambda: found(torch.where, UPPER, SCORES, 0.0),
        lambda: found(torch.where, UPPER),
        lambda: found(torch.add, SCORES, -math.inf),  # no tensor: all would be left out
        lambda: found(torch.add, SCORES, torch.tensor([[0.5, -100.0], [0.0, 0.0]])),  # adds something as well
        lambda: found(torch.add, SCORES, torch.zeros(2, 2).masked_fill(UPPER, -100.0), alpha=0.01),
        lambda: found(torch.add, SCORES, SCORES),
        lambda: found(torch.sub, SCORES, torch.zeros(2, 2)),
        lambda: found(torch.mul, SCORES, UPPER),
    ],
)
def test_what_adds_or_chooses_otherwise_is_no_mask(call):
    assert call() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_left_out_is_found_again_in_every_type(dtype):
    scores = masked(SCORES.to(dtype), UPPER)
    assert scores.dtype == dtype
    assert left_out(scores).tolist() == UPPER.tolist()
    assert torch.softmax(scores, -1)[0].tolist() == [1.0, 0.0]
