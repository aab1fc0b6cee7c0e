"""What is refused on its face, in one sentence, and what becomes of the network that is not."""

import copy

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConfigurationError, PreparationError
from qat.inject.handle import Handle, handle_of

X = torch.ones(2, 3)


def linear():
    return nn.Linear(3, 2)


def prepared():
    network = linear()
    qat.prepare(network, X)
    return network


def exported():
    return torch.export.export(linear(), (X,)).module()


REFUSED = {
    "function": (lambda: torch.relu, r"the module is <built-in .*relu.*>; pass an instance of torch\.nn\.Module"),
    "class": (lambda: nn.Linear, "pass an instance of torch.nn.Module"),
    "compiled": (lambda: torch.compile(linear()), "is a torch.compile wrapper; prepare the original module"),
    "lazy": (lambda: nn.LazyLinear(2), "the parameter weight has no shape yet; run the network on one batch first"),
    "prepared": (prepared, "the module is prepared already; call remove"),
    "inner_prepared": (lambda: nn.Sequential(prepared(), nn.ReLU()), "the sub-module '0' is prepared already"),
    "scripted": (lambda: nn.Sequential(torch.jit.script(linear())), "sub-module '0' is a TorchScript module, whose"),
    "exported": (exported, "the module is a graph of torch.export, which has no train and eval mode; pass the orig"),
    "quantized": (
        lambda: nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(3, 2)),
        "the sub-module '0' is a Linear, quantized by other means; pass the float network",
    ),
    "fake_quantized": (
        lambda: nn.Sequential(linear(), torch.ao.quantization.FakeQuantize()), "'1' is a FakeQuantize, quantized by",
    ),
    "observed": (
        lambda: nn.Sequential(linear(), torch.ao.quantization.MinMaxObserver()), "'1' is a MinMaxObserver, quantized",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("target", ["onnxruntime", None])
def test_what_cannot_be_prepared_is_refused_in_one_sentence(name, target):
    make, sentence = REFUSED[name]
    with pytest.raises(PreparationError, match=sentence) as refused:
        qat.prepare(make(), X, target=target)
    assert str(refused.value).count("\n") == 0


def test_an_unknown_target_is_refused_before_the_network_runs():
    class Untouched(nn.Module):
        def forward(self, x):
            raise AssertionError

    with pytest.raises(ConfigurationError, match="unknown target 'tflite'; choose one of onnxruntime, litert"):
        qat.prepare(Untouched(), X, target="tflite")


def test_the_network_stays_what_it_is():
    network = nn.Sequential(linear(), nn.BatchNorm1d(2), nn.Dropout(0.5))
    network[1].eval()
    before, kind = copy.deepcopy(network.state_dict()), type(network)
    handle = qat.prepare(network, X)
    assert isinstance(handle, Handle) and handle_of(network) is handle
    assert type(network) is kind and list(network.state_dict()) == list(before)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert [part.training for part in network.modules()] == [True, True, False, True]


def test_a_network_of_layers_of_torch_alone_has_their_lines():
    handle = qat.prepare(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.ones(2, 3, 8))
    files = {layer: source.rpartition(":")[0].rpartition("/nn/")[2] for layer, source in handle.sources.items()}
    assert files["linear1"] == "modules/linear.py"
    assert files["self_attn.softmax"] == "modules/activation.py"  # not where its parts are written out
    assert files["add"] == "modules/transformer.py"
