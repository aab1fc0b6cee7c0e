"""What an epoch's entry holds, and that epochs never stand twice."""

import torch
from torch import nn

import qat
from qat.training.history import History


class Run:
    """The part of a trainer that the history reads."""

    def __init__(self, network):
        self.optimizers = [torch.optim.SGD(network.parameters(), lr=0.5)]
        self.callback_metrics = {"loss": torch.tensor(2.0), "worst": torch.tensor(float("inf")), "map": torch.ones(2)}
        self.current_epoch, self.global_step, self.sanity_checking = 0, 10, False


def prepared():
    network = nn.Sequential(nn.Linear(4, 3))
    handle = qat.prepare(network, torch.ones(2, 4), "w8a8", target=None)
    network(torch.linspace(-1, 1, 8).view(2, 4))
    return network, handle


def test_an_entry_holds_plain_numbers():
    network, handle = prepared()
    history = History()
    for quantizer in handle.quantizers.values():
        quantizer.measure = True
    network(torch.linspace(-1, 1, 8).view(2, 4))
    numbers = history.add(Run(network), handle)
    (entry,) = history.entries
    assert entry["metrics"] == {"loss": 2.0, "worst": None}
    assert (entry["epoch"], entry["step"], entry["phase"], entry["learning_rate"]) == (0, 10, "quantize", 0.5)
    assert (entry["weight_bits"], entry["activation_bits"]) == (8, 8)
    assert set(entry["layers"]) == set(handle.quantizers)
    assert 30 < entry["layers"]["0.weight"]["sqnr_db"] < 70
    assert numbers["qat/weight_bits"] == 8.0
    assert numbers["qat/clip_share/0.weight"] == 0.0


def test_an_unmeasured_epoch_has_no_layers():
    network, handle = prepared()
    history = History()
    assert set(history.add(Run(network), handle)) == {"qat/weight_bits", "qat/activation_bits", "qat/phase"}


def test_an_epoch_that_runs_again_replaces_what_was_written():
    network, handle = prepared()
    run, history = Run(network), History([{"epoch": epoch, "metrics": {}} for epoch in range(4)])
    run.current_epoch = 2
    history.add(run, handle)
    assert [entry["epoch"] for entry in history.entries] == [0, 1, 2]


def test_an_entry_written_again_keeps_its_layers_and_takes_the_new_metrics():
    network, handle = prepared()
    run, history = Run(network), History()
    for quantizer in handle.quantizers.values():
        quantizer.measure = True
    network(torch.linspace(-1, 1, 8).view(2, 4))
    history.add(run, handle, {"val_loss": torch.tensor(1.5)})
    (entry,) = history.entries
    assert entry["metrics"] == {"val_loss": 1.5}
    history.add(run, handle)
    assert history.entries == [{**entry, "metrics": {"loss": 2.0, "worst": None}}]
    assert entry["layers"]
