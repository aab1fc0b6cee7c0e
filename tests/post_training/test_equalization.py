"""Equalized layers, by hand; the float function stays what it was, and so does the module in the end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.inject.prepare import prepare
from qat.post_training import calibrate
from qat.post_training.adjustments import Adjustments
from qat.post_training.equalization import equalize, ranges
from qat.post_training.pairs import pairs_of

EQUALIZED = qat.PostTraining(equalize=True)
ONE_SCALE = qat.QuantConfig(weight=qat.QuantSpec(bits=8))


def equalized(module, x, quant="w8a8"):
    """(the pairs, what was adjusted) of a module that is prepared and equalized."""
    handle, adjustments = prepare(module, x, quant), Adjustments(module)
    with torch.no_grad():
        return equalize(handle, adjustments, lambda: module(x)), adjustments


class TwoLayers(nn.Module):
    """Functional code: weights that are parameters of their own, and no layer that is a module."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([[8.0, -4.0], [0.5, 0.25], [0.0, 0.0]]))
        self.shift = nn.Parameter(torch.tensor([4.0, -1.0, 3.0]))
        self.second = nn.Parameter(torch.tensor([[0.5, 2.0, 1.0], [-0.25, 8.0, 2.0]]))

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.first, self.shift)), self.second)


def test_two_layers_by_hand():
    module, x = TwoLayers().eval(), torch.tensor([[1.0, 2.0], [-1.0, 3.0]])
    expected = module(x)
    (pair,), adjustments = equalized(module, x)
    assert (pair.first, pair.bias, pair.second) == ("first", "shift", "second")
    # ranges 8 and 0.5: divided by 4; 0.5 and 8: times 4; nothing comes through the third channel, so it stays
    assert module.first.tolist() == [[2.0, -1.0], [2.0, 1.0], [0.0, 0.0]]
    assert module.shift.tolist() == [1.0, -4.0, 3.0]
    assert module.second.tolist() == [[2.0, 0.5, 1.0], [-1.0, 2.0, 2.0]]
    assert torch.equal(module(x), expected)  # powers of two
    adjustments.undo()
    assert module.first.tolist() == [[8.0, -4.0], [0.5, 0.25], [0.0, 0.0]]


def test_a_batch_norm_takes_the_factors_and_is_folded_where_a_weight_has_one_scale():
    module = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2, eps=0.25), nn.ReLU(), nn.Conv1d(2, 1, 1)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
        module[0].bias.copy_(torch.tensor([1.0, 1.0]))
        module[1].running_mean.copy_(torch.tensor([0.5, 2.0]))
        module[1].running_var.copy_(torch.tensor([3.75, 0.0]))
        module[1].weight.copy_(torch.tensor([16.0, -0.25]))
        module[1].bias.copy_(torch.tensor([1.0, 5.0]))
        module[3].weight.copy_(torch.tensor([[[1.0], [6.0]]]))
    x = torch.linspace(-2, 2, 8).view(2, 1, 4)
    expected = module(x)
    # folded weights are 2 * 16 / 2 = 16 and 3 * -0.25 / 0.5 = -1.5, against 1 and 6: factors 4 and 1/2
    with torch.no_grad():
        (pair,), _ = equalized(module, x)
    assert module[1].weight.tolist() == [4.0, -0.5] and module[1].bias.tolist() == [0.25, 10.0]
    assert module[3].weight.flatten().tolist() == [4.0, 3.0] and module[0].weight.flatten().tolist() == [2.0, 3.0]
    assert pair.norm.mean == "1.running_mean" and torch.equal(module.forward.__self__.original_forward(x), expected)
    module.forward.__self__.remove()
    equalized(module, x, ONE_SCALE)
    # the batch norm's own factors are 2 and -1 by now; the weight has their size, and the batch norm their sign
    assert module[0].weight.flatten().tolist() == [4.0, 3.0] and module[0].bias.tolist() == [2.0, 1.0]
    assert module[1].weight.tolist() == [2.0, -0.5] and module[1].running_mean.tolist() == [1.0, 2.0]
    assert torch.equal(module.forward.__self__.original_forward(x), expected)


class Net(nn.Module):
    """Depthwise and grouped convolutions, pools, a flattened image, a residual, a clamp: some have pairs, some none."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 6, 1, groups=3)
        self.clamped = nn.Conv2d(6, 6, 1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.hidden = nn.Linear(4 * 9, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.depthwise(F.relu(self.stem(x)))))
        x = F.leaky_relu(self.grouped(F.max_pool2d(F.relu(self.pointwise(x)), 2)))
        x = self.up(F.relu6(self.clamped(x)))
        x = F.adaptive_avg_pool2d(F.relu(self.left(x) + self.right(x)), 3)
        return self.head(F.dropout(F.relu(self.hidden(x.flatten(1))), training=self.training))


def net():
    torch.manual_seed(0)
    module = Net().eval()
    with torch.no_grad():
        module.norm.running_var.uniform_(0.5, 2.0)
        module.norm.weight.uniform_(0.1, 3.0)
    return module


def test_pairs_follow_values_and_not_names():
    module, x = net(), torch.rand(2, 3, 10, 10)
    handle = prepare(module, x)
    with torch.no_grad():
        pairs = {(pair.first, pair.second) for pair in pairs_of(handle, lambda: module(x))}
    assert pairs == {
        ("stem.weight", "depthwise.weight"),
        ("depthwise.weight", "pointwise.weight"),
        ("pointwise.weight", "grouped.weight"),
        ("grouped.weight", "clamped.weight"),
        ("hidden.weight", "head.weight"),
    }


def test_ranges_are_equal_at_the_end_and_the_function_is_the_same():
    module, x = net(), torch.rand(4, 3, 10, 10)
    expected = module(x)
    with torch.no_grad():
        pairs, adjustments = equalized(module, x)
        assert len(pairs) == 5
        for pair in pairs:
            first, second = ranges(pair, adjustments)
            assert (first.log2() - second.log2()).abs().max() < 0.01
    torch.testing.assert_close(module.forward.__self__.original_forward(x), expected, rtol=1e-5, atol=1e-6)


class Flattened(nn.Module):
    """Channels that become features behind a pool, in the order that a linear layer reads them, or in another one."""

    def __init__(self, turned):
        super().__init__()
        self.turned = turned
        self.conv, self.head = nn.Conv2d(1, 3, 1), nn.Linear(3 * 9, 2)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.head(x.transpose(1, 3).flatten(1) if self.turned else x.reshape(x.shape[0], -1))


class MeanOverChannels(nn.Module):
    """A mean over the channels, of as many places."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)).mean(1))


@pytest.mark.parametrize(
    ("make", "x", "count"),
    [
        (lambda: Flattened(turned=False), torch.rand(2, 1, 3, 3), 1),
        (lambda: Flattened(turned=True), torch.rand(2, 1, 3, 3), 0),
        (MeanOverChannels, torch.rand(2, 1, 4), 0),
    ],
)
def test_a_pair_whose_channels_are_others_behind_a_move_is_found_out(make, x, count):
    torch.manual_seed(0)
    module = make().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pairs, _ = equalized(module, x)
    assert len(pairs) == count
    if not count:
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_one_scale_for_a_weight_loses_less():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()).eval()
    with torch.no_grad():  # channels of sizes that one step cannot serve
        sizes = torch.logspace(-3, 0, 8)
        module[0].weight *= sizes.view(-1, 1, 1, 1)
        module[0].bias *= sizes
        module[2].weight /= sizes.view(-1, 1, 1, 1)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.rand(16, 3, 10, 10)
    expected = module(x)

    def noise(options):
        handle = calibrate(module, [x], ONE_SCALE, options=options)
        found = (module(x) - expected).square().mean().item()
        assert torch.equal(module(x), qat.convert(module)(x))
        handle.remove()
        return found

    assert noise(EQUALIZED) < 0.1 * noise(qat.PostTraining())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
