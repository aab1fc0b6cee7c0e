"""What the Lightning modules of the recipes share: a network, the weights it starts from, its optimizer, the steps."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytorch_lightning
import torch
from torch import nn

from qat.errors import ConfigurationError
from qat.models.checkpoint import load_weights

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[..., torch.optim.lr_scheduler.LRScheduler]


@dataclass(frozen=True)
class Companion:
    """Another network of the parts of the trained one, which is exported beside it: a LightningModule may return some
    by name from `companions()`.

    example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
    state: names, as in a shell, of the inputs and outputs that one run hands to the next.
    """

    network: nn.Module
    example_inputs: object
    state: tuple[str, ...] = ()


class NetworkModule(pytorch_lightning.LightningModule):
    """Trains `network` on batches of (inputs, targets); a subclass says with which loss, in `_step`.

    optimizer: makes the optimizer from the parameters.
    scheduler: called as `scheduler(optimizer, total_steps=)` and stepped once per optimizer step; None keeps the
        optimizer's learning rate.
    checkpoint: weights to start from, see `qat.models.checkpoint.load_weights`.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        checkpoint: str | None = None,
    ):
        super().__init__()
        self.network = network
        self.optimizer, self.scheduler = optimizer, scheduler
        if checkpoint is not None:
            load_weights(network, checkpoint)

    def _step(self, batch, stage: str) -> torch.Tensor:
        """The loss of a batch; logs it, and the metrics, as those of `stage`: "train", "val" or "test"."""
        raise NotImplementedError

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch, batch_idx: int):
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
