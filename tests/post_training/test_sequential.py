"""Layers adjusted one after the other: errors on average taken off biases, by hand, and what is left alone."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.post_training import calibrate

CORRECTED = qat.PostTraining(bias_correction=True)

#: Weights of two output channels on a grid of steps of 1: 7 is there for the range, and meets an input of zeros.
WEIGHT = [[0.4, 7.0], [-1.3, 7.0]]
CONFIG = qat.QuantConfig(
    weight=qat.QuantSpec(bits=4, observer="minmax"),
    activation=qat.QuantSpec(bits=8, signed=False, symmetric=False, observer="minmax"),
    edge_bits=4,
)


def batch():
    """Means 3 and 0, on a grid of steps of 5 / 255."""
    return torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])


def linear(bias=(10.0, 20.0)):
    layer = nn.Linear(2, 2, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer)


def test_the_mean_error_of_each_channel_is_taken_off_its_bias():
    module = linear()
    handle = calibrate(module, [batch()], CONFIG, options=CORRECTED)
    # weights become 0 and -1: at a mean input of 3 the outputs are 1.2 too small and 0.9 too large
    assert module[0].bias.tolist() == pytest.approx([11.2, 19.1], abs=1e-5)
    assert torch.equal(module[0].weight, torch.tensor(WEIGHT))
    handle.remove()
    assert module[0].bias.tolist() == [10.0, 20.0]


def test_several_batches_count_by_their_rows():
    module = linear()
    calibrate(module, [batch(), torch.tensor([[5.0, 0.0]])], CONFIG, options=CORRECTED)
    assert module[0].bias.tolist() == pytest.approx([10 + 0.4 * 3.5, 20 - 0.3 * 3.5], abs=1e-5)


def test_a_batch_norm_takes_the_error_off_by_its_mean():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(WEIGHT).view(2, 2, 1))
            self.norm = nn.BatchNorm1d(2)
            self.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))

        def forward(self, x):
            return F.relu(self.norm(F.conv1d(x, self.weight)))

    module = Normed()
    handle = calibrate(module, [batch().unsqueeze(-1)], CONFIG, options=CORRECTED)
    assert module.norm.running_mean.tolist() == pytest.approx([1.0 - 1.2, 2.0 + 0.9], abs=1e-5)
    handle.remove()
    assert module.norm.running_mean.tolist() == [1.0, 2.0]


def test_layers_behind_are_corrected_for_what_layers_before_do_to_them():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    batches = [torch.rand(64, 4), torch.rand(64, 4)]
    expected = torch.cat([module(each) for each in batches]).mean(0)
    quant = dataclasses.replace(qat.QuantConfig.parse("w3a8"), edge_bits=3)

    def mean_of_integers(options):
        handle = calibrate(module, batches, quant, options=options)
        means = torch.cat([module(each) for each in batches]).mean(0).detach()
        handle.remove()
        return means

    plain, corrected = (mean_of_integers(options) - expected for options in (qat.PostTraining(), CORRECTED))
    assert plain.abs().max() > 0.02 and corrected.abs().max() < 0.01


def test_a_layer_without_a_bias_has_no_place_for_its_error():
    module = linear(bias=None)
    calibrate(module, [batch()], CONFIG, options=CORRECTED).remove()
    assert torch.equal(module[0].weight, torch.tensor(WEIGHT))


class Shared(nn.Module):
    """One layer called twice, with one bias for both, a weight that is an embedding's as well, and one made anew."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.table = nn.Embedding(5, 4)
        self.scaled = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x, ids):
        hidden = self.twice(F.relu(self.twice(x))) + self.table(ids)
        return F.linear(self.scaled(hidden), self.table.weight)


def test_what_layers_share_and_weights_that_are_computed():
    torch.manual_seed(0)
    module = Shared().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inputs = (torch.rand(32, 4), torch.arange(32) % 5)
    options = qat.PostTraining(bias_correction=True, adaround=qat.AdaRound(iterations=30))
    quant = dataclasses.replace(qat.QuantConfig.parse("w3a8"), edge_bits=3)
    handle = calibrate(module, [inputs], quant, options=options)
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"twice.weight", "scaled.bias"}  # one rounding for both calls; one bias cannot serve two errors
    assert torch.equal(module(*inputs), qat.convert(module)(inputs))
    handle.remove()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_layer_with_too_many_inputs_is_corrected_and_keeps_plain_rounding(monkeypatch):
    monkeypatch.setattr("qat.post_training.moments.MOST_INPUTS", 1)
    module = linear()
    options = qat.PostTraining(bias_correction=True, adaround=True)
    calibrate(module, [batch()], CONFIG, options=options)
    assert torch.equal(module[0].weight, torch.tensor(WEIGHT))
    assert module[0].bias.tolist() == pytest.approx([11.2, 19.1], abs=1e-5)
