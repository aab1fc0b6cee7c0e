"""Code that reads numbers of tensors: refused for a file, whose path is one for all inputs, with the line."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import AddressError, PreparationError


class Branching(nn.Module):
    """A linear layer on embedded ids, and a body that may look at everything."""

    def __init__(self, body):
        super().__init__()
        self.embedding, self.linear, self.body = nn.Embedding(10, 8), nn.Linear(8, 8), body
        self.last = None

    def forward(self, ids):
        return self.body(self, self.linear(self.embedding(ids)), ids)


def branch(network, x, ids):
    if x.mean() > 0:
        return x * 2.0
    return x


def divide_by_a_number(network, x, ids):
    return x * (1.0 / float(x.abs().max()))


def branch_on_ids(network, x, ids):
    if ids.max() > 3:
        return x * 2.0
    return x


IDS = torch.arange(8).reshape(2, 4)


@pytest.mark.parametrize("body", [branch, divide_by_a_number, branch_on_ids])
def test_a_branch_on_values_is_named_with_its_line_and_the_way_out(body):
    with pytest.raises(PreparationError, match=r"test_control_flow\.py:\d+ reads a number .*module=.*target=None"):
        qat.prepare(Branching(body), IDS)


@pytest.mark.parametrize(
    "body",
    [
        lambda network, x, ids: x * float(len(x.relu().nonzero())),
        lambda network, x, ids: x + x.flatten()[torch.argwhere(x.flatten() > 0)].sum(),
        lambda network, x, ids: x * len(ids.unique()),
        lambda network, x, ids: x * len(ids[ids > 2]),
    ],
)
def test_sizes_that_values_decide_are_named_with_their_line_before_training(body):
    with pytest.raises(
        PreparationError, match=r"test_control_flow\.py:\d+ makes a tensor whose size .*module=.*target"
    ):
        qat.prepare(Branching(body), IDS)
    qat.prepare(Branching(body), IDS, target=None)


def leave_torch(network, x, ids):
    return x * float(x.detach().numpy().std())


def test_values_that_leave_torch_are_named_with_their_line():
    with pytest.raises(PreparationError, match=r"test_control_flow\.py:\d+ takes a tensor .*\(to NumPy\)"):
        qat.prepare(Branching(leave_torch), IDS)


def log_a_number(network, x, ids):
    network.last = x.mean().item()
    return x


def test_what_only_logs_a_number_runs_without_a_target():
    network = Branching(log_a_number)
    qat.prepare(network, IDS, target=None)
    network(IDS)
    assert isinstance(network.last, float)
    with pytest.raises(PreparationError, match="reads a number of a tensor that depends on the inputs"):
        qat.prepare(Branching(log_a_number), IDS)


def test_a_path_that_was_not_recorded_raises_with_its_line_where_there_is_no_target():
    network = Branching(branch_on_ids)
    qat.prepare(network, IDS.clamp(max=2), target=None)
    with pytest.raises(AddressError, match=r"mul at .*test_control_flow\.py:\d+ runs after"):
        network(IDS)


@pytest.mark.parametrize(
    "body",
    [
        lambda network, x, ids: branch(network, x, ids) if network.training else x,
        lambda network, x, ids: x * 2.0 if len(x) > 100 or x.shape[1] > 100 else x,
        lambda network, x, ids: x * float(torch.tensor(2.0)),
    ],
)
def test_branches_in_train_mode_and_on_sizes_and_constants_are_none(body):
    qat.prepare(Branching(body), IDS)


def shortcut(network, x, ids):
    """As mask code of libraries: a shortcut for contents at hand, which tensors without them go around."""
    at_hand = type(ids) is torch.Tensor and not torch.compiler.is_exporting()
    if at_hand and bool((ids >= 0).all()):
        return x
    return x.relu()


def test_a_shortcut_on_ids_that_exporting_does_not_take_is_none():
    network = Branching(shortcut)
    qat.prepare(network, IDS)
    assert network.last is None


@pytest.mark.parametrize("target", ["onnxruntime", None])
def test_a_branch_of_torch_is_refused_as_one(target):
    def body(network, x, ids):
        return torch.cond(x.sum() > 0, lambda x: x * 2.0, lambda x: x + 1.0, (x,))

    with pytest.raises(PreparationError, match=r"torch\.cond at .*test_control_flow\.py:\d+ .*torch\.where, .*module="):
        qat.prepare(Branching(body), IDS, target=target)
