"""What a checkpoint keeps comes back as it was, and nothing else is taken for it."""

import copy

import pytest
import torch
from torch import nn

import qat
from qat.errors import CheckpointError
from qat.training.checkpoint_state import difference, packed, refuse_other_module, state_in, unpack
from qat.training.history import History
from qat.training.scale_optimizer import ScaleOptimizer


def trained(quant="w4a4", seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    handle = qat.prepare(network, torch.ones(2, 6), quant, target=None)
    optimizer = ScaleOptimizer((name, parameter, None) for name, parameter in handle.named_parameters())
    for _ in range(2):
        network(torch.randn(4, 6)).square().sum().backward()
        optimizer.step(0.1)
    return handle, optimizer


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_it_comes_back_as_it_was_and_loads_safely(tmp_path):
    handle, optimizer = trained()
    handle.set_state(qat.QuantState(observe=False, freeze_scales=True))
    state = packed(handle, optimizer, History([{"epoch": 0}]), advised=True)
    torch.save(state, tmp_path / "state.pt")
    other, other_optimizer = trained(seed=1)
    history, advised = unpack(torch.load(tmp_path / "state.pt", weights_only=True), other, other_optimizer)
    assert (history.entries, advised) == ([{"epoch": 0}], True)
    assert equal(packed(other, other_optimizer, history, advised), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "quantizers have version 99, this code reads 1; use the qat that wrote it"),
        ({"bits": {"2.weight": 3}}, "trained as w4a4, with 2.weight at 3 bits, and this run is w4a4, with 4; use the"),
        ({"quantizers": {}}, "quantizers are not this network's"),
    ],
)
def test_what_belongs_elsewhere_is_refused(change, message):
    handle, optimizer = trained()
    state = copy.deepcopy(packed(handle, optimizer, History(), False))
    with pytest.raises(CheckpointError, match=message):
        unpack({**state, **change}, handle, optimizer)


def test_the_state_under_the_key_is_taken_and_the_only_one_by_who_is_alone():
    one, two = {"quantizers": {"a": 1}}, {"quantizers": {"b": 2}}
    callbacks = {"QATCallback": one, "ModelCheckpoint": {"best_model_path": ""}, "EarlyStopping": None}
    assert state_in({"callbacks": callbacks}, "QATCallback", alone=False) is one
    assert state_in({"callbacks": callbacks}, "another", alone=True) is one
    assert state_in({"callbacks": callbacks}, "another", alone=False) is None
    assert state_in({"callbacks": {**callbacks, "second": two}}, "another", alone=True) is None
    assert state_in({"state_dict": {}}, "QATCallback", alone=True) is None


def test_state_dicts_differ_in_names_and_shapes_and_not_in_counts_of_batches():
    own = {"a": torch.ones(2), "b": torch.ones(3), "norm.num_batches_tracked": torch.tensor(0)}
    assert difference(own, {"a": torch.zeros(2), "b": torch.zeros(3)}) == ""
    assert difference(own, {"b": torch.ones(1, 3), "c": torch.ones(1)}) == (
        "misses a and has besides c and has another shape for b (1, 3) instead of (3,)"
    )
    assert difference({}, {str(number): None for number in range(7)}) == "has besides 0, 1, 2, 3, 4 and 2 more"


def test_parts_that_read_their_own_way_are_left_to_it():
    class Lenient(nn.Linear):
        def _load_from_state_dict(self, *arguments):
            pass

    module = nn.Sequential(Lenient(2, 2), nn.Linear(2, 1))
    state = {"0.anything": torch.ones(1), "1.weight": torch.ones(1, 2), "1.bias": torch.ones(1)}
    refuse_other_module(module, state, "the file")
    with pytest.raises(CheckpointError, match="^the file is not of this Sequential: it misses 1.bias; pass a check"):
        refuse_other_module(module, {"1.weight": torch.ones(1, 2)}, "the file")
