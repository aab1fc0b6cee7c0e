"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels, no download."""

import torch

from qat.data.module import InMemoryDataModule, check_held_out
from qat.data.tensors import TensorData, stratified_split
from qat.errors import MissingExtraError
from qat.integer.images import ImageScaling

#: Pixels count how many of a 4 x 4 field's points are inked, 0..16.
MAX_PIXEL = 16


class DigitsDataModule(InMemoryDataModule):
    """Batches of (images (B, 1, 8, 8) float32 in 0..1, labels (B,) int64 in 0..9).

    batch_size, seed, limit: see `InMemoryDataModule`.
    split_seed: of the division into splits; apart from `seed`, so that runs of several seeds share a test split.
    val_share, test_share: held out of all samples, the same share of every class.
    """

    image_scaling = ImageScaling(largest=MAX_PIXEL)

    def __init__(
        self,
        batch_size: int = 64,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.2,
        limit: int | None = None,
    ):
        super().__init__(batch_size, seed, limit)
        check_held_out(val_share, test_share)
        self.split_seed, self.val_share, self.test_share = split_seed, val_share, test_share

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        images, labels = _load()
        rest, test = stratified_split(labels, self.test_share, self.split_seed)
        train, val = stratified_split(labels[rest], self.val_share / (1 - self.test_share), self.split_seed)
        for name, indices in (("train", rest[train]), ("val", rest[val]), ("test", test)):
            indices = indices[: self.limit]
            self.splits[name] = TensorData(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]))


def _load():
    """Images (1797, 1, 8, 8) float32 in 0..1 and labels (1797,) int64, as NumPy arrays."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            'the digits come with scikit-learn, which is not installed; pip install "lightning-qat[digits]".'
        ) from error
    digits = load_digits()
    images = (digits.images / MAX_PIXEL).astype("float32")[:, None]
    return images, digits.target.astype("int64")
