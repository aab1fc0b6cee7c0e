"""CIFAR-10 from a folder of parquet files, decoded once and kept in memory as bytes (180 MB)."""

import numpy
import torch

from qat.data.augmentation import crop_and_flip, crops_and_flips
from qat.data.module import InMemoryDataModule, check_share
from qat.data.parquet import read_split
from qat.data.tensors import TensorData
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling

#: Per channel (red, green, blue), of pixels scaled to 0..1: the values ImageNet models are trained with, which the
#: public CIFAR-10 ResNet-20 checkpoints expect too.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

NUM_CLASSES = 10

#: Pixels of black border that random crops may reach into, as in He et al. (arXiv:1512.03385).
PADDING = 4


#: (B, 3, H, W) uint8 -> float32, scaled to 0..1 and then by `MEAN` and `STD`.
SCALING = ImageScaling(MEAN, STD)


class ImageData(TensorData):
    """uint8 images, normalized as they are read. augmentation_seed: crop and flip at random, by epoch; None: as is."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, augmentation_seed: int | None = None):
        super().__init__(images, labels)
        self.augmentation_seed = augmentation_seed

    def __getitems__(self, draws: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = super().__getitems__(draws)
        if self.augmentation_seed is not None:
            # A sampler passes through one epoch at a time, so all draws of a batch share it.
            epoch = draws[0] // len(self)
            plan = crops_and_flips(self.augmentation_seed, epoch, len(self), PADDING)
            images = crop_and_flip(images, plan[torch.tensor(draws) % len(self)], PADDING)
        return SCALING.normalize(images), labels


class CIFAR10DataModule(InMemoryDataModule):
    """Batches of (images (B, 3, 32, 32) float32 normalized, labels (B,) int64 in 0..9).

    dir: folder with `train*.parquet` and `test*.parquet`.
    batch_size, limit, num_workers: see `InMemoryDataModule`.
    seed: of the order of training samples and of their augmentation.
    split_seed: of the division into training and validation samples.
    val_share: of the training images, held out for validation.
    augment: crop and flip training images.
    """

    image_scaling = SCALING

    def __init__(
        self,
        dir: str,
        batch_size: int = 128,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
        augment: bool = True,
        limit: int | None = None,
        num_workers: int = 0,
    ):
        super().__init__(batch_size, seed, limit, num_workers)
        check_share("val_share", val_share)
        self.dir, self.split_seed, self.val_share, self.augment = dir, split_seed, val_share, augment

    def setup(self, stage: str | None = None) -> None:
        """Decode what `stage` ("fit", "validate", "test", None for all) needs and is not in memory yet."""
        if stage in ("fit", "validate", None) and "train" not in self.splits:
            self._setup_training()
        if stage in ("test", "predict", None) and "test" not in self.splits:
            self.splits["test"] = ImageData(*self._read("test", self.limit))

    def _read(self, split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = read_split(self.dir, split, limit)
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= NUM_CLASSES:
            raise ConfigurationError(
                f"the {split} split in {self.dir!r} has labels from {lowest} to {highest}, CIFAR-10 from 0 to "
                f"{NUM_CLASSES - 1}; set data.dir= to a folder with CIFAR-10."
            )
        return images, labels

    def _setup_training(self) -> None:
        images, labels = self._read("train", self.limit and 2 * self.limit)
        order = numpy.random.default_rng(self.split_seed).permutation(len(images))
        held_out = max(1, round(self.val_share * len(images)))
        if held_out >= len(images):
            raise ConfigurationError(
                f"{self.dir!r} has {len(images)} training images, of which data.val_share={self.val_share} holds out "
                "all; lower it or raise data.limit."
            )
        val, train = numpy.sort(order[:held_out]), numpy.sort(order[held_out:])
        seed = self.seed if self.augment else None
        self.splits["train"] = ImageData(*_take(images, labels, train, self.limit), augmentation_seed=seed)
        self.splits["val"] = ImageData(*_take(images, labels, val, self.limit))


def _take(images: torch.Tensor, labels: torch.Tensor, indices: numpy.ndarray, limit: int | None):
    kept = torch.from_numpy(indices[:limit])
    return images[kept], labels[kept]
