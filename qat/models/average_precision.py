"""Mean average precision as COCO defines it, computed by pycocotools from a detector's raw outputs."""

import contextlib
import io
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from qat.errors import MissingExtraError
from qat.models.boxes import detections_of, points_of

#: Images of one process, at most: the numbers of those of the next follow.
_IMAGES_PER_PROCESS = 2**32


class MeanAveragePrecision(Metric):
    """mAP at overlaps of 0.50, 0.55 to 0.95, mean over classes, 0..1; NaN where no box was there to be found.

    size: pixels along an edge of the square images. strides: of the detector's levels. num_classes: labels are below.
    Raises `MissingExtraError` without pycocotools.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = True  # images are numbered in the order in which they come

    def __init__(self, size: int, strides: tuple[int, ...], num_classes: int):
        super().__init__()
        _require_coco()
        self.size, self.strides, self.num_classes = size, tuple(strides), num_classes
        self.add_state("images", default=[], dist_reduce_fx="cat")  # (B,) number of every image
        self.add_state("found_in", default=[], dist_reduce_fx="cat")  # (D,) number of the image of a detection
        self.add_state("found", default=[], dist_reduce_fx="cat")  # (D, 6) box, score, label
        self.add_state("true_in", default=[], dist_reduce_fx="cat")  # (T,)
        self.add_state("true", default=[], dist_reduce_fx="cat")  # (T, 5) box, label

    def update(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Count a batch.

        outputs: "logits" (B, C, N), "distances" (B, 4, N). targets: "boxes" (B, M, 4), "labels" (B, M), -1 for no box.
        """
        detections = detections_of(outputs, points_of(self.size, self.strides, outputs["logits"].device))
        boxes, labels = targets["boxes"].float(), targets["labels"]
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        first = rank * _IMAGES_PER_PROCESS + sum(len(numbers) for numbers in self.images)
        numbers = first + torch.arange(len(labels), device=labels.device)
        self.images.append(numbers)
        kept, real = detections.kept, labels >= 0
        rows = [detections.boxes, detections.scores[..., None], detections.labels[..., None].float()]
        self.found_in.append(numbers[:, None].expand_as(kept)[kept])
        self.found.append(torch.cat(rows, dim=-1)[kept])
        self.true_in.append(numbers[:, None].expand_as(real)[real])
        self.true.append(torch.cat([boxes, labels[..., None].float()], dim=-1)[real])

    def compute(self) -> Tensor:
        states = [dim_zero_cat(state).cpu() for state in (self.images, self.found_in, self.found)]
        truths = [dim_zero_cat(state).cpu() for state in (self.true_in, self.true)]
        return torch.tensor(_average_precision(*states, *truths, self.num_classes), dtype=torch.float32)


def _average_precision(
    images: Tensor, found_in: Tensor, found: Tensor, true_in: Tensor, true: Tensor, num_classes: int
):
    _, COCOeval = _require_coco()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how long each part took
        truth = _coco(images, true_in, true, num_classes)
        evaluation = COCOeval(truth, _coco(images, found_in, found, num_classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes), -1 for an absent class
    present = precision[precision > -1]
    return float(present.mean()) if present.size else float("nan")


def _coco(images: Tensor, of_image: Tensor, rows: Tensor, num_classes: int):
    """COCO's own structure. rows: (R, 5) box and label, or (R, 6) with the score between them."""
    COCO, _ = _require_coco()
    annotations = []
    for number, (image, (left, top, right, bottom, *score, label)) in enumerate(
        zip(of_image.tolist(), rows.tolist(), strict=True), start=1
    ):
        width, height = right - left, bottom - top
        annotation = {
            "id": number,
            "image_id": image,
            "category_id": int(label),
            "bbox": [left, top, width, height],
            "area": width * height,
            "iscrowd": 0,
        }
        annotations.append(annotation | ({"score": score[0]} if score else {}))
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images.tolist()],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _require_coco():
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError(
            "mean average precision is computed by pycocotools, which is not installed; pip install "
            '"lightning-qat[detection]".'
        ) from error
    return COCO, COCOeval
