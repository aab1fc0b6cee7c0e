"""The walk over batches, and the networks that are run beside files."""

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric

from qat.errors import ConfigurationError
from qat.real.nodes import RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram
from qat.verification.networks import NetworksBeside
from qat.verification.walk import Walk

PROGRAM = RealProgram(
    inputs=(RealInput("x", "float32", ("batch", 2), (1, 2)),),
    outputs=(RealOutput("y", "relu"),),
    nodes=(RealNode("relu", "", "aten.relu.default", (("self", Ref("x")),), "float32", ("batch", 2)),),
)


class MeanOutput(MeanMetric):
    """The mean of outputs, whatever the targets."""

    def update(self, outputs, targets):
        super().update(outputs)


def test_batches_are_counted_and_the_first_sample_kept():
    x = torch.arange(10.0).reshape(5, 2)
    walk = Walk(
        PROGRAM, RealProgram.named_inputs, [(x[:3], torch.ones(3)), {"x": x[3:], "label": torch.zeros(2)}], None
    )
    batches = list(walk)
    assert [batch.before for batch in batches] == [0, 3]
    assert [len(batch.targets) for batch in batches] == [3, 2]
    assert torch.equal(batches[1].tensors["x"], x[3:])
    assert batches[0].first(2)["x"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (walk.samples, walk.sample["x"].tolist()) == (5, [[0.0, 1.0]])


def test_a_walk_over_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="there are no batches to verify on"):
        list(Walk(PROGRAM, RealProgram.named_inputs, [], None))


def test_networks_that_are_given_have_metrics_of_their_own():
    beside = NetworksBeside(None, lambda x: 2 * x, {"mean": MeanOutput()})
    for number in (1.0, 3.0):
        assert beside.run(torch.full((2, 2), number), torch.zeros(2))["float"].tolist() == [[2 * number] * 2] * 2
    assert beside.numbers() == {"float": {"mean": 4.0}}


def test_a_network_in_train_mode_is_refused_but_where_it_is_not_looked_at():
    with pytest.raises(ConfigurationError, match="the float module is in train mode"):
        NetworksBeside(None, nn.ReLU(), None)
    assert NetworksBeside(nn.ReLU(), None, None, unchecked=("fake_quant",)).numbers() == {"fake_quant": {}}
