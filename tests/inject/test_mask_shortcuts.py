"""Networks that leave a mask out where it masks nothing, as libraries do for batches without padding."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import AddressError

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


@pytest.mark.parametrize("apply", [filled, added])
def test_a_batch_without_padding_is_one_that_masks_nothing(apply):
    torch.manual_seed(0)
    ids, mask = batch()
    network = Attention(apply)
    qat.prepare(network, (ids, mask))
    network(ids, mask)
    loss = network(ids, torch.ones_like(mask)).square().mean()
    loss.backward()
    assert bool(network.query.weight.grad.any())
    network.eval()
    program = qat.convert(network)
    with torch.no_grad():
        for given in (mask, torch.ones_like(mask)):
            assert torch.equal(network(ids, given), program({"ids": ids, "mask": given}))


def test_anything_else_that_takes_its_place_is_refused():
    ids, mask = batch()
    network = Attention(filled, scales=True)
    qat.prepare(network, (ids, mask), target=None)
    network(ids, mask)
    with pytest.raises(AddressError, match=r"mul at .*test_mask_shortcuts\.py:\d+ runs after"):
        network(ids, torch.ones_like(mask))


def test_a_mask_that_was_not_there_when_the_network_was_recorded_is_refused():
    ids, mask = batch()
    network = Attention(filled)
    qat.prepare(network, (ids, torch.ones_like(mask)), target=None)
    network(ids, torch.ones_like(mask))
    with pytest.raises(AddressError, match="prepare again with example_inputs that take this path"):
        network(ids, mask)
