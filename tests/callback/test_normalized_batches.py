"""Batches that training_step normalizes: what the loader gives is not what the network gets."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import qat
from qat.errors import PreparationError


@pytest.fixture
def raw():
    """Four batches of eight pictures of bytes."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (32, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return DataLoader(TensorDataset(pictures, torch.arange(32) % 3), 8)


@pytest.fixture
def normalizing(plain_module):
    class Normalizing(plain_module.kind):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.network(batch[0].float() / 255), batch[1])

        def validation_step(self, batch, batch_idx):
            self.network(batch[0].float() / 255)

    return plain_module(kind=Normalizing)


def test_the_sentence_names_what_the_loader_gives_and_the_remedy(normalizing, raw, make_trainer):
    with pytest.raises(PreparationError) as caught:
        make_trainer(qat.QATCallback("w8a8")).fit(normalizing, raw, raw)
    told = str(caught.value)
    assert "PlainNetwork.forward fails on the example inputs, uint8 of shape (8, 1, 6, 6) (RuntimeError: " in told
    assert "QATCallback(example_inputs=...)" in told and "\n" not in told


def test_the_remedy_ends_in_a_verified_file(normalizing, raw, make_trainer):
    callback = qat.QATCallback("w8a8", example_inputs=torch.rand(4, 1, 6, 6))
    make_trainer(callback).fit(normalizing, raw, raw)
    assert not callback.report.float_ops
    assert all(entry.differing == 0 for entry in callback.report.mismatches.values())
