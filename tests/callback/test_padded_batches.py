"""Fine-tuning on texts of many lengths: some batches are padded and some are not."""

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import qat

LOWEST = torch.finfo(torch.float32).min


class Reader(nn.Module):
    """Attention over tokens; the mask is left out of eager code where it masks nothing, as libraries do."""

    def __init__(self):
        super().__init__()
        self.embed, self.query, self.last = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        x = self.embed(ids)
        scores = self.query(x) @ x.transpose(1, 2)
        if type(mask) is not torch.Tensor or not bool(mask.all()):
            scores = scores.masked_fill(mask[:, None] == 0, LOWEST)
        return self.last((torch.softmax(scores, -1) @ x).mean(1))


class Reading(pytorch_lightning.LightningModule):
    """Cross entropy on three classes."""

    def __init__(self):
        super().__init__()
        self.network = Reader()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch["ids"], batch["mask"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches(*padded: bool):
    """A loader of one batch of six texts for each entry, padded or not."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for entry in padded:
        ids = torch.randint(0, 11, (6, 5), generator=generator)
        mask = torch.ones_like(ids)
        if entry:
            mask[::2, 3:] = 0
        found.append({"ids": ids, "mask": mask, "label": ids[:, 0] % 3})
    return DataLoader(found, batch_size=None)


@pytest.mark.parametrize("first_is_padded", [True, False])
def test_a_run_whose_first_batch_is_of_one_kind_goes_on_with_the_other(first_is_padded, make_trainer):
    torch.manual_seed(0)
    module = Reading()
    callback = qat.QATCallback("w8a8", qat.Schedule(start=0.2, freeze_observers=0.6, freeze_batch_norm=0.8))
    data = batches(first_is_padded, not first_is_padded, True, False)
    make_trainer(callback, max_epochs=4).fit(module, data, data)
    assert callback.report.ok
    program = callback.program
    module.eval()
    for batch in data:
        inputs = {name: batch[name] for name in ("ids", "mask")}
        with torch.no_grad():
            assert torch.equal(module.network(**inputs), program(inputs))
