"""Look-ups by integers that are opened give the values and gradients of torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.inject.looked_up import one_hot, rows

IDS = torch.tensor([[3, 0, -1], [2, -4, 1]])


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 2, 3)])
@pytest.mark.parametrize("index", [IDS, IDS.int(), (IDS,), IDS[0]])
def test_rows_of_a_parameter_are_torchs_own(shape, index):
    table = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    ours, theirs = rows(table, index), table.detach()[index]
    assert torch.equal(ours, theirs)
    own = torch.autograd.grad((ours * ours).sum(), table)[0]
    other = table.detach().clone().requires_grad_()
    assert torch.equal(own, torch.autograd.grad((other[index] * other[index]).sum(), other)[0])


@pytest.mark.parametrize(
    ("table", "index"),
    [
        (torch.zeros(4, 5), IDS),  # no parameter
        (nn.Parameter(torch.zeros(4, 5)), 2),
        (nn.Parameter(torch.zeros(4, 5)), slice(0, 2)),
        (nn.Parameter(torch.zeros(4, 5)), (IDS, 0)),
        (nn.Parameter(torch.zeros(4, 5)), torch.tensor(2)),
        (nn.Parameter(torch.zeros(4, 5)), torch.tensor([True, False, True, False])),
        (nn.Parameter(torch.zeros(4, dtype=torch.int64), requires_grad=False), IDS),
    ],
)
def test_other_indices_are_left_to_torch(table, index):
    assert rows(table, index) is NotImplemented


def test_one_hot_is_torchs_own():
    ids = IDS.clamp(min=0)
    assert torch.equal(one_hot(ids, 6), F.one_hot(ids, 6))
    assert one_hot(ids, 6).dtype == torch.int64
    assert one_hot(ids) is NotImplemented
