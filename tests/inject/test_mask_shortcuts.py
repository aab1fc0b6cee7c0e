"""Networks that leave a mask out where it masks nothing, as libraries do for batches without padding."""

import onnxruntime
import pytest
import torch
from torch import nn

import qat
from qat.errors import AddressError
from qat.schedule import QuantState

LOWEST = torch.finfo(torch.float32).min


def filled(scores, mask):
    """Where the mask is 0, the lowest number."""
    return scores.masked_fill(mask[:, None] == 0, LOWEST)


def added(scores, mask):
    """The lowest number, added where the mask is 0: two calls make the mask, a third applies it."""
    return scores + (1.0 - mask[:, None].float()) * LOWEST


class Attention(nn.Module):
    """Attention over a sequence, whose mask is left out if it is at hand and all ones."""

    def __init__(self, apply, scales: bool = False):
        super().__init__()
        self.embed, self.query, self.last = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.apply_mask = apply
        self.scales = scales

    def forward(self, ids, mask):
        """ids, mask: (N, L) integers, 1 for tokens that count."""
        x = self.embed(ids)
        scores = self.query(x) @ x.transpose(1, 2)
        if type(mask) is not torch.Tensor or not bool(mask.all()):
            scores = self.apply_mask(scores, mask)
        elif self.scales:
            scores = scores * 0.5
        return self.last((torch.softmax(scores, -1) @ x).mean(1))


def batch():
    """(ids, mask with padding)."""
    ids = torch.arange(24).reshape(4, 6) % 11
    mask = torch.ones(4, 6, dtype=torch.int64)
    mask[1, 4:] = mask[3, 2:] = 0
    return ids, mask


def prepared(apply, *, padded: bool):
    """A network that was recorded with padding or without."""
    torch.manual_seed(0)
    ids, mask = batch()
    network = Attention(apply)
    return network, qat.prepare(network, (ids, mask if padded else torch.ones_like(mask)))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("apply", [filled, added])
def test_batches_with_padding_and_without_take_the_same_network(apply, padded, tmp_path):
    ids, mask = batch()
    kinds = (mask, torch.ones_like(mask), mask.flip(1))
    network, _ = prepared(apply, padded=padded)
    for given in kinds:
        network.zero_grad()
        network(ids, given).square().mean().backward()
        assert bool(network.query.weight.grad.any())
    network.eval()
    program = qat.convert(network)
    assert [entry.name for entry in program.inputs] == ["ids", "mask"]
    qat.export(program, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    for given in kinds:
        for length in (6, 2, 1):
            inputs = {"ids": ids[:, :length], "mask": given[:, :length]}
            with torch.no_grad():
                expected = network(**inputs)
            assert torch.equal(expected, program(inputs))
            (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
            assert torch.equal(expected, torch.from_numpy(output))


@pytest.mark.parametrize("apply", [filled, added])
def test_the_scores_have_one_quantizer_on_both_ways(apply):
    handles = [prepared(apply, padded=padded)[1] for padded in (True, False)]
    assert handles[0].quantizers.keys() == handles[1].quantizers.keys()
    scores = [name for name in handles[0].quantizers if "matmul" in name]
    assert scores == ["matmul.output", "matmul#2.output"]


@pytest.mark.parametrize("padded", [True, False])
def test_a_way_that_computes_something_else_is_quantized_as_well(padded):
    ids, mask = batch()
    network = Attention(filled, scales=True)
    handle = qat.prepare(network, (ids, mask if padded else torch.ones_like(mask)), target=None)
    assert set(handle.plan.sites["matmul.output"].shares) == {"matmul", "masked_fill", "mul"}
    for given in (mask, torch.ones_like(mask)):
        network(ids, given).sum().backward()


def test_a_forward_that_ends_early_on_either_way_is_told():
    ids, mask = batch()
    network, _ = prepared(filled, padded=True)
    network.last.forward = lambda x: x
    for given in (mask, torch.ones_like(mask)):
        with pytest.raises(AddressError, match="without reaching 1 of the recorded calls, the first of them last"):
            network(ids, given)


def test_compiled_code_masks_every_batch():
    class Compilable(Attention):
        def forward(self, ids, mask):
            x = self.embed(ids)
            scores = self.query(x) @ x.transpose(1, 2)
            if torch.compiler.is_compiling() or type(mask) is not torch.Tensor or not bool(mask.all()):
                scores = self.apply_mask(scores, mask)
            return self.last((torch.softmax(scores, -1) @ x).mean(1))

    ids, mask = batch()
    network = Compilable(filled)
    handle = qat.prepare(network, (ids, torch.ones_like(mask)))
    network(ids, mask)
    handle.set_state(QuantState(observe=False))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for given in (mask, torch.ones_like(mask)):
        assert torch.equal(compiled(ids, given), network(ids, given))


# a mask of 0 and 2 has no other kind that is known, and is recorded as it is


def test_a_batch_without_padding_is_one_that_masks_nothing():
    ids, mask = batch()
    network = Attention(filled)
    qat.prepare(network, (ids, 2 * mask), target=None)
    for given in (2 * mask, torch.full_like(mask, 2)):
        network(ids, given).sum().backward()


def test_anything_else_that_takes_its_place_is_refused():
    ids, mask = batch()
    network = Attention(filled, scales=True)
    qat.prepare(network, (ids, 2 * mask), target=None)
    network(ids, 2 * mask)
    with pytest.raises(AddressError, match=r"mul at .*test_mask_shortcuts\.py:\d+ runs after"):
        network(ids, torch.full_like(mask, 2))


def test_a_mask_that_was_not_there_when_the_network_was_recorded_is_refused():
    ids, mask = batch()
    network = Attention(filled)
    qat.prepare(network, (ids, torch.full_like(mask, 2)), target=None)
    network(ids, torch.full_like(mask, 2))
    with pytest.raises(AddressError, match="prepare again with example_inputs that take this path"):
        network(ids, 2 * mask)
