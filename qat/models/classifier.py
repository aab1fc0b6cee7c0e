"""Training of any image classifier with cross entropy."""

import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from qat.errors import ConfigurationError
from qat.models.module import NetworkModule, OptimizerFactory, SchedulerFactory

Batch = tuple[torch.Tensor, torch.Tensor]


class Classifier(NetworkModule):
    """Trains `network`, whose logits are (B, num_classes), on batches of (inputs, labels (B,) int64).

    optimizer, scheduler, checkpoint: see `NetworkModule`.
    label_smoothing: share of the target spread over all classes (arXiv:1512.00567).

    Logs `train/loss`, `train/accuracy`, and the same of `val` and `test`, by epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        num_classes: int = 10,
        checkpoint: str | None = None,
        label_smoothing: float = 0.0,
    ):
        if not 0.0 <= label_smoothing < 1.0:
            raise ConfigurationError(f"model.label_smoothing is {label_smoothing}; it is a share, from 0 to below 1.")
        super().__init__(network, optimizer, scheduler, checkpoint)
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.accuracy = nn.ModuleDict({f"{stage}_split": self._accuracy() for stage in ("train", "val", "test")})

    def test_metrics(self) -> dict[str, Metric]:
        """Fresh metrics of (logits, labels) by name, for comparing the integer network with this one."""
        return {"accuracy": self._accuracy()}

    def _accuracy(self) -> MulticlassAccuracy:
        return MulticlassAccuracy(self.num_classes, average="micro")

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        inputs, labels = batch
        logits = self.network(inputs)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing if stage == "train" else 0.0)
        accuracy = self.accuracy[f"{stage}_split"]
        accuracy(logits, labels)
        shown = {"on_step": False, "on_epoch": True, "batch_size": len(inputs)}
        self.log(f"{stage}/loss", loss, **shown)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=stage != "train", **shown)
        return loss
