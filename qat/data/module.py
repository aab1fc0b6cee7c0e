"""What the data modules share: loaders over three splits in memory, and the place in the epoch in every checkpoint."""

import pytorch_lightning
from torch.utils.data import DataLoader

from qat.data.sampler import EpochLoader, EpochSampler
from qat.data.tensors import TensorData
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling


class InMemoryDataModule(pytorch_lightning.LightningDataModule):
    """Loaders over `splits`, which `setup` of a subclass fills with "train", "val" and "test".

    batch_size: samples per batch, of every split; the last batch is as short as it comes out.
    seed: of the order of training samples.
    limit: keep only so many samples of each split, for quick tries.
    num_workers: processes that gather batches beside the training step; 0 gathers them in between.

    image_scaling: of inputs that are pictures, how their bytes became the numbers in a batch; None for others.
    """

    image_scaling: ImageScaling | None = None

    def __init__(self, batch_size: int, seed: int, limit: int | None = None, num_workers: int = 0):
        super().__init__()
        if batch_size < 1:
            raise ConfigurationError(f"data.batch_size is {batch_size}; a batch holds at least one sample.")
        if limit is not None and limit < 1:
            raise ConfigurationError(f"data.limit is {limit}; keep at least one sample, or null for all.")
        self.batch_size, self.seed, self.limit, self.num_workers = batch_size, seed, limit, num_workers
        self.splits: dict[str, TensorData] = {}
        self._train_loader: EpochLoader | None = None
        self._train_state: dict | None = None

    def train_dataloader(self) -> EpochLoader:
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(self.splits["train"], self.seed, replicas, rank)
        self._train_loader = EpochLoader(self.splits["train"], sampler, self.batch_size, self.num_workers)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self._train_loader

    def val_dataloader(self) -> DataLoader:
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        return self._in_order("test")

    # Lightning restores loaders on its own only if nobody asks for the number of steps of the run before, as schedulers
    # do; a data module it always restores.
    def state_dict(self) -> dict:
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        self._train_state = state_dict or None

    def _in_order(self, split: str) -> DataLoader:
        return DataLoader(self.splits[split], self.batch_size, num_workers=self.num_workers, collate_fn=_as_it_is)


def check_share(name: str, share: float) -> None:
    """Refuse a share of the samples outside 0..1, by the name of its setting."""
    if not 0.0 < share < 1.0:
        raise ConfigurationError(f"data.{name} is {share}; a share of the samples lies between 0 and 1.")


def check_held_out(val_share: float, test_share: float) -> None:
    """Refuse shares of the samples for validation and test that leave none to train on."""
    check_share("val_share", val_share)
    check_share("test_share", test_share)
    if val_share + test_share >= 1.0:
        raise ConfigurationError(
            f"data.val_share {val_share} and data.test_share {test_share} leave nothing to train on; make their sum "
            "smaller than 1."
        )


def _as_it_is(batch):
    return batch
