"""Loss and perplexity of a language model, by hand, and the network that its companion is."""

import functools
import math

import pytest
import torch

from qat.models.gpt import GPT
from qat.models.language_model import LanguageModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = GPT(vocabulary_size=8, block_size=4, width=8, heads=2, depth=1)
    return LanguageModel(network, functools.partial(torch.optim.SGD, lr=0.1))


def batch(rows=3):
    ids = torch.randint(0, 8, (rows, 4), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(4).expand(rows, 4), ids.roll(-1, 1)


@pytest.fixture
def logged(model, monkeypatch):
    found = {}
    monkeypatch.setattr(model, "log", lambda name, value, **how: found.update({name: (value, how)}))
    return found


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_a_network_that_knows_nothing_is_as_perplexed_as_there_are_characters(model, logged, stage):
    torch.nn.init.zeros_(model.network.head.weight)  # all characters are as likely
    loss = model._step(batch(), stage)
    assert loss.item() == pytest.approx(math.log(8))
    assert set(logged) == {f"{stage}/loss", f"{stage}/perplexity"}
    assert logged[f"{stage}/perplexity"][0].compute().item() == pytest.approx(8.0)
    assert all(how["on_epoch"] and not how["on_step"] and how["batch_size"] == 3 for _, how in logged.values())


def test_a_network_that_knows_it_all_is_not_perplexed(model, logged):
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.copy_(torch.tensor([50.0, *[0.0] * 7]))
    zeros = torch.zeros(2, 4, dtype=torch.long)
    loss = model._step((zeros, torch.arange(4).expand(2, 4), zeros), "val")
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logged["val/perplexity"][0].compute().item() == pytest.approx(1.0)


def test_the_metric_of_the_integer_network_is_a_fresh_one(model):
    first, second = model.test_metrics()["perplexity"], model.test_metrics()["perplexity"]
    assert first is not second


def test_predictions_need_no_targets(model):
    ids, positions, targets = batch()
    assert torch.equal(model.predict_step((ids, positions, targets), 0), model.network(ids, positions))


def test_the_companion_is_made_of_the_same_parts(model):
    (companion,) = model.companions().values()
    assert companion.network.head is model.network.head
    assert companion.state == ("past.*", "present.*")
    outputs = companion.network(**companion.example_inputs)
    assert outputs["logits"].shape[1:] == (1, 8)
