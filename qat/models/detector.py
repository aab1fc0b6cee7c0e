"""Training of an anchor-free detector on images with boxes."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torchmetrics import Metric

from qat.errors import ConfigurationError
from qat.models.average_precision import MeanAveragePrecision
from qat.models.boxes import Points, detections_of, points_of
from qat.models.detection_loss import detection_loss
from qat.models.module import NetworkModule, OptimizerFactory, SchedulerFactory
from qat.report.files import require_report_extra

#: Detections below this score are not drawn: those that count for the metric alone would hide the rest.
LEAST_SCORE_DRAWN = 0.4

#: Images of a batch that are drawn.
MOST_DRAWN = 12

Batch = tuple[torch.Tensor, Mapping[str, torch.Tensor]]


class Detector(NetworkModule):
    """Trains `network` on batches of (images (B, 3, image_size, image_size) in 0..1, targets of boxes and labels).

    network: has `strides`, and its outputs are those of `AnchorFreeDetector`; they are turned into boxes outside of it
        (`qat.models.boxes`). targets: "boxes" (B, M, 4) left, top, right, bottom in pixels, "labels" (B, M) int64, -1
        for a row that is no box.
    optimizer, scheduler, checkpoint: see `NetworkModule`.
    class_names: of every label from 0 on.

    Logs `train/loss`, and `loss` and `map` (`MeanAveragePrecision`) of `val` and `test`, by epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        class_names: Sequence[str],
        scheduler: SchedulerFactory | None = None,
        image_size: int = 64,
        checkpoint: str | None = None,
    ):
        super().__init__(network, optimizer, scheduler, checkpoint)
        self.class_names, self.image_size = tuple(class_names), image_size
        self.precision_of = nn.ModuleDict(
            {f"{stage}_split": self._mean_average_precision() for stage in ("val", "test")}
        )

    def test_metrics(self) -> dict[str, Metric]:
        """Fresh metrics of (outputs, targets) by name, for comparing the integer network with this one."""
        return {"map": self._mean_average_precision()}

    def draw_predictions(self, images: torch.Tensor, outputs: Mapping[str, torch.Tensor], targets: Mapping) -> bytes:
        """PNG of the first images of a batch, with what is found in the outputs of whichever backend and what is true.

        Raises `MissingExtraError` without what draws reports.
        """
        require_report_extra()
        from qat.report.figures.predictions import Box, images_with_boxes

        found = detections_of(outputs, self._points(outputs["logits"].device))
        drawn = []
        for row in range(min(len(images), MOST_DRAWN)):
            true = [Box(*box) for box in targets["boxes"][row][targets["labels"][row] >= 0].tolist()]
            kept = found.kept[row] & (found.scores[row] >= LEAST_SCORE_DRAWN)
            boxes, labels, scores = (values[row][kept].tolist() for values in (found.boxes, found.labels, found.scores))
            texts = [f"{self.class_names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
            drawn.append(true + [Box(*box, text) for box, text in zip(boxes, texts, strict=True)])
        return images_with_boxes(images[: len(drawn)], drawn)

    def _mean_average_precision(self) -> MeanAveragePrecision:
        return MeanAveragePrecision(self.image_size, self.network.strides, len(self.class_names))

    def _points(self, device: torch.device) -> Points:
        return points_of(self.image_size, self.network.strides, device)

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        images, targets = batch
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ConfigurationError(
                f"images have {' x '.join(map(str, images.shape[2:]))} pixels and model.image_size is "
                f"{self.image_size}; set it to their edge, they are square."
            )
        outputs = self.network(images)
        loss = detection_loss(outputs, targets, self._points(images.device))
        shown = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log(f"{stage}/loss", loss, **shown)
        if stage != "train":  # finding the boxes of a batch takes as long as a training step
            precision = self.precision_of[f"{stage}_split"]
            precision.update(outputs, targets)
            self.log(f"{stage}/map", precision, prog_bar=True, **shown)
        return loss
