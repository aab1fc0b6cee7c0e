"""Tensors of a module that are changed and given back."""

import torch
from torch import nn

from qat.post_training.adjustments import Adjustments


def test_what_was_there_comes_back_bit_for_bit():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parameter, place = module[0].weight, module[0].weight.data_ptr()
    adjustments = Adjustments(module)
    with torch.no_grad():
        adjustments.write("0.weight", torch.ones(2, 2))
        adjustments.write("0.weight", torch.zeros(2, 2))
        adjustments.write("1.running_mean", torch.tensor([5.0, 6.0]))
    assert module[0].weight.tolist() == [[0, 0], [0, 0]] and module[1].running_mean.tolist() == [5, 6]
    with adjustments.undone():
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module[0].weight.tolist() == [[0, 0], [0, 0]]
    adjustments.undo()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module[0].weight is parameter and parameter.data_ptr() == place and parameter.requires_grad
