"""A network stands in eval mode, on the CPU and in float32 while it is converted, and then as it stood before."""

import pytest
import torch
from torch import nn

import qat
from qat.lowering.placement import placed_for_conversion


@pytest.fixture
def prepared():
    network = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 2, 1))
    handle = qat.prepare(network, torch.randn(2, 2, 8))
    network(torch.randn(4, 2, 8))
    return network, handle


def test_every_part_goes_back_to_the_mode_it_had(prepared):
    network, handle = prepared
    network.train()[1].eval()  # a frozen batch norm
    with placed_for_conversion(network, handle):
        assert not any(part.training for part in network.modules())
    assert [part.training for part in network] == [True, False, True, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_numbers_are_wide_inside_and_the_same_tensors_afterwards(prepared, dtype):
    network, handle = prepared
    network.to(dtype)
    weight = network[0].weight
    content, before = weight.data_ptr(), weight.detach().clone()
    with placed_for_conversion(network, handle):
        assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
        assert network[1].running_var.dtype == torch.float32
        assert network[1].num_batches_tracked.dtype == torch.int64
        assert torch.equal(network[0].weight, before.float())
    assert network[0].weight is weight and weight.data_ptr() == content
    assert torch.equal(weight, before)


def test_double_precision_stays(prepared):
    network, handle = prepared
    network.double()
    with placed_for_conversion(network, handle):
        assert network[0].weight.dtype == torch.float64


def test_an_error_inside_leaves_the_network_as_it_was(prepared):
    network, handle = prepared
    network.bfloat16().train()
    with pytest.raises(RuntimeError, match="inside"), placed_for_conversion(network, handle):
        raise RuntimeError("inside")
    assert network.training and network[0].weight.dtype == torch.bfloat16
