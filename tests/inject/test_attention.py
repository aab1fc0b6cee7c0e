"""A prepared transformer layer lives like any other network: compiled, copied, pickled, resumed, in bfloat16."""

import copy
import io
import pickle

import torch
from torch import nn

import qat


class Tokens(nn.Module):
    """An encoder layer with GELU on tokens, causal, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 3)
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x):
        return self.head(self.layer(x, src_mask=self.mask))


def batch(seed=1):
    return torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(seed))


def trained(quant="w8a8", steps=2):
    network = Tokens()
    handle = qat.prepare(network, batch(), quant)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    for step in range(steps):
        optimizer.zero_grad()
        network(batch(step)).square().mean().backward()
        optimizer.step()
    return network, handle


def test_compiled_as_one_graph_it_trains_as_in_eager_code():
    torch._dynamo.reset()
    gradients = []
    for compiles in (False, True):
        network, _ = trained("w4a4")  # the weights of its edges have 8 bits
        network.zero_grad()
        forward = torch.compile(network, fullgraph=True, backend="eager") if compiles else network
        forward(batch(7)).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-4, atol=1e-6), name
    torch._dynamo.reset()


def test_copies_and_pickles_compute_the_same_codes():
    network, _ = trained()
    network.eval()
    expected = qat.convert(network)(batch(7))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with torch.no_grad():
            assert torch.equal(other(batch(7)), expected)
        assert torch.equal(qat.convert(other)(batch(7)), expected)


def test_a_saved_state_goes_on_exactly():
    network, handle = trained("w4a4")
    file = io.BytesIO()
    torch.save({"network": network.state_dict(), "quantizers": handle.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, other_handle = trained("w4a4", steps=1)
    other.load_state_dict(saved["network"])
    other_handle.load_state_dict(saved["quantizers"])
    network.eval()
    other.eval()
    assert torch.equal(network(batch(7)), other(batch(7)))


def test_under_autocast_the_eval_forward_is_the_program():
    network, _ = trained()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(batch(3)).square().mean().backward()
        network.eval()
        with torch.no_grad():
            output = network(batch(7))
    assert torch.equal(output.float(), qat.convert(network)(batch(7)))
