"""Training of a language model with cross entropy, measured by its perplexity."""

import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.text import Perplexity

from qat.models.gpt import GPT
from qat.models.module import Companion, NetworkModule, OptimizerFactory, SchedulerFactory

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class LanguageModel(NetworkModule):
    """Trains `network` on batches of (ids, positions, targets), each (B, T) int64.

    optimizer, scheduler, checkpoint: see `NetworkModule`.

    Logs `train/loss`, in nats per token, `train/perplexity`, its exponential, and the same of `val` and `test`, by
    epoch.
    """

    def __init__(
        self,
        network: GPT,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        checkpoint: str | None = None,
    ):
        super().__init__(network, optimizer, scheduler, checkpoint)
        self.perplexity = nn.ModuleDict({f"{stage}_split": Perplexity() for stage in ("train", "val", "test")})

    def test_metrics(self) -> dict[str, Metric]:
        """Fresh metrics of (logits, targets) by name, for comparing the integer network with this one."""
        return {"perplexity": Perplexity()}

    def companions(self) -> dict[str, Companion]:
        """What generates text: the network for one token at a time, its cache handed from step to step."""
        step = self.network.step()
        return {"step": Companion(step, step.example_inputs(), state=("past.*", "present.*"))}

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.network(*batch[:2])

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        ids, positions, targets = batch
        logits = self.network(ids, positions)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        perplexity = self.perplexity[f"{stage}_split"]
        perplexity(logits.detach(), targets)
        shown = {"on_step": False, "on_epoch": True, "batch_size": len(ids)}
        self.log(f"{stage}/loss", loss, **shown)
        self.log(f"{stage}/perplexity", perplexity, prog_bar=stage != "train", **shown)
        return loss
