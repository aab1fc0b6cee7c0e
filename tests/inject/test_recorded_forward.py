"""The forward that is recorded: which module runs in it, and the sentence where it fails."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from qat.errors import AddressError, PreparationError
from qat.inject import addresses
from qat.inject.recorded_forward import RunningModules, recorded_forward


class Watched(nn.Module):
    """Notes the path of the module that runs, in each of its parts."""

    def __init__(self, running=None, fails=False):
        super().__init__()
        self.block, self.fails = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), fails
        self.running = running

    def forward(self, x):
        if self.fails:
            raise ValueError("first line\nsecond line")
        return self.block(x)


def test_the_innermost_module_that_runs_is_known():
    network, seen = Watched(), []
    running = RunningModules(network)
    for path in ("block", "block.0", "block.1"):
        network.get_submodule(path).register_forward_pre_hook(lambda *_: seen.append(None))
    with running.watching():
        network.block[0].register_forward_pre_hook(lambda *_: seen.append(tuple(running.paths)))
        network(torch.ones(1, 2))
    assert ("", "block", "block.0") in seen
    assert running.innermost == ""


def test_a_module_that_fails_is_left_as_well():
    network = nn.Sequential(Watched(fails=True))
    running = RunningModules(network)
    with running.watching(), pytest.raises(ValueError, match="first line"):
        network(torch.ones(1, 2))
    assert running.paths == [""]
    network[0].fails = False
    network(torch.ones(1, 2))
    assert running.paths == [""]  # no longer watched


def test_a_failure_of_the_network_is_one_sentence_with_the_inputs_and_the_remedy():
    inputs = torch.ones(1, 2), {"ids": torch.zeros(3, dtype=torch.long)}
    with pytest.raises(
        PreparationError,
        match=r"^Watched\.forward fails on the example inputs, float32 of shape \(1, 2\) \(ValueError: first line\); "
        r"pass inputs as the network gets them, in QATCallback\(example_inputs=\.\.\.\) or qat\.prepare",
    ):
        recorded_forward(TorchFunctionMode(), Watched(fails=True), inputs[:1], {})


def test_a_refusal_keeps_its_own_words():
    class Refusing(nn.Module):
        def forward(self, x):
            raise AddressError("as it is")

    with pytest.raises(AddressError, match="^as it is$"):
        recorded_forward(TorchFunctionMode(), Refusing(), (torch.ones(1),), {})


def test_chains_of_code_positions_end_at_it():
    class Placed(nn.Module):
        def forward(self, x):
            return addresses.site_of(addresses.caller(0))

    network = Placed()

    def further_out():
        return recorded_forward(TorchFunctionMode(), network, (None,), {})

    assert recorded_forward(TorchFunctionMode(), network, (None,), {}) == further_out()
