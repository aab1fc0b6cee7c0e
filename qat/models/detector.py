"""Training of an anchor-free detector on images with boxes."""

from collections.abc import Mapping

import torch
from torch import nn
from torchmetrics import Metric

from qat.models.average_precision import MeanAveragePrecision
from qat.models.boxes import points_of
from qat.models.detection_loss import detection_loss
from qat.models.module import NetworkModule, OptimizerFactory, SchedulerFactory

Batch = tuple[torch.Tensor, Mapping[str, torch.Tensor]]


class Detector(NetworkModule):
    """Trains `network` on batches of (images (B, 3, image_size, image_size), targets of boxes and labels).

    network: has `strides`, and its outputs are those of `AnchorFreeDetector`; they are turned into boxes outside of it
        (`qat.models.boxes`). targets: "boxes" (B, M, 4) left, top, right, bottom in pixels, "labels" (B, M) int64, -1
        for a row that is no box.
    optimizer, scheduler, checkpoint: see `NetworkModule`.

    Logs `train/loss`, and `loss` and `map` (`MeanAveragePrecision`) of `val` and `test`, by epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        num_classes: int = 5,
        image_size: int = 64,
        checkpoint: str | None = None,
    ):
        super().__init__(network, optimizer, scheduler, checkpoint)
        self.num_classes, self.image_size = num_classes, image_size
        self.precision_of = nn.ModuleDict(
            {f"{stage}_split": self._mean_average_precision() for stage in ("val", "test")}
        )

    def test_metrics(self) -> dict[str, Metric]:
        """Fresh metrics of (outputs, targets) by name, for comparing the integer network with this one."""
        return {"map": self._mean_average_precision()}

    def _mean_average_precision(self) -> MeanAveragePrecision:
        return MeanAveragePrecision(self.image_size, self.network.strides, self.num_classes)

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        images, targets = batch
        outputs = self.network(images)
        loss = detection_loss(outputs, targets, points_of(self.image_size, self.network.strides, images.device))
        shown = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log(f"{stage}/loss", loss, **shown)
        if stage != "train":  # finding the boxes of a batch takes as long as a training step
            precision = self.precision_of[f"{stage}_split"]
            precision.update(outputs, targets)
            self.log(f"{stage}/map", precision, prog_bar=True, **shown)
        return loss
