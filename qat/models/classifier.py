"""Training of any image classifier with cross entropy."""

import math
from collections.abc import Callable, Iterable

import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from qat.errors import ConfigurationError
from qat.models.checkpoint import load_weights

Batch = tuple[torch.Tensor, torch.Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class Classifier(pytorch_lightning.LightningModule):
    """Trains `network`, whose logits are (B, num_classes), on batches of (inputs, labels (B,) int64).

    optimizer: makes the optimizer from the parameters.
    scheduler: called as `scheduler(optimizer, total_steps=)` and stepped once per optimizer step; None keeps the
        optimizer's learning rate.
    checkpoint: weights to start from, see `qat.models.checkpoint.load_weights`.
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
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ConfigurationError(f"model.label_smoothing is {label_smoothing}; it is a share, from 0 to below 1.")
        self.network = network
        self.optimizer, self.scheduler = optimizer, scheduler
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.accuracy = nn.ModuleDict({f"{stage}_split": self._accuracy() for stage in ("train", "val", "test")})
        if checkpoint is not None:
            load_weights(network, checkpoint)

    def test_metrics(self) -> dict[str, Metric]:
        """Fresh metrics of (logits, labels) by name, for comparing the integer network with this one."""
        return {"accuracy": self._accuracy()}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.network(batch[0])

    def configure_optimizers(self):
        try:
            optimizer = self.optimizer(self.network.parameters())
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the optimizer cannot be made: {error}; change optimizer= or its settings."
            ) from error
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        if math.isinf(total_steps):
            raise ConfigurationError(
                "the scheduler needs the number of steps of the run, which has no end; set trainer.max_epochs or "
                "trainer.max_steps, or model.scheduler=null."
            )
        scheduler = self.scheduler(optimizer, total_steps=int(total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

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
