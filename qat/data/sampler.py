"""The order of training samples as a pure function of seed and epoch, continued exactly in the middle of an epoch."""

from collections.abc import Iterator

import numpy
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from qat.errors import CheckpointError


def epoch_order(size: int, seed: int, epoch: int) -> numpy.ndarray:
    """The permutation of `range(size)` in which epoch `epoch` of a run with `seed` sees its samples; (size,) int64."""
    return numpy.random.default_rng((seed, epoch)).permutation(size)


class EpochSampler(DistributedSampler):
    """Draws every sample once per epoch, in the order of `epoch_order`.

    It yields draw numbers, `epoch * size + index`, so that a dataset knows the epoch of a sample also in a worker
    process; `divmod(draw, size)` gives both back.

    A `DistributedSampler`, since Lightning sets the epoch of any sampler but puts its own in the place of every other
    kind when there are several devices. Each of `num_replicas` processes draws every `num_replicas`-th sample; the
    order is repeated from its beginning so that all draw equally many.
    """

    def __init__(self, dataset: Dataset, seed: int, num_replicas: int = 1, rank: int = 0):
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.first = 0  # samples of this process to leave out of the next pass, then 0 again

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        order = epoch_order(size, self.seed, self.epoch)
        own = numpy.resize(order, self.total_size)[self.rank :: self.num_replicas]
        first, self.first = self.first, 0
        for index in own[first:]:
            yield self.epoch * size + int(index)


class EpochLoader(DataLoader):
    """A loader whose place in the epoch Lightning saves and restores with every checkpoint.

    dataset: has `__getitems__(draws) -> batch`, so that a whole batch is gathered and augmented at once.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, batch_size: int, num_workers: int = 0):
        super().__init__(
            dataset, sampler=sampler, batch_size=batch_size, num_workers=num_workers, collate_fn=_already_a_batch
        )
        self._yielded = 0
        self._resume: dict[str, int] | None = None

    def __iter__(self):
        # A generator, so that nothing is drawn before the first batch is asked for: Lightning makes the iterator
        # first and sets the sampler's epoch after that.
        resume, self._resume = self._resume, None
        # A checkpoint from the end of an epoch is resumed at the beginning of the next one.
        self._yielded = resume["batches"] if resume and resume["epoch"] == self.sampler.epoch else 0
        self.sampler.first = self._yielded * self.batch_size
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and how many of its batches have been handed out."""
        return {"epoch": self.sampler.epoch, "batches": self._yielded, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken. Raises `CheckpointError` if batches have another size now."""
        if state["batch_size"] != self.batch_size:
            raise CheckpointError(
                f"the checkpoint was written with batches of {state['batch_size']} samples and this run has "
                f"batches of {self.batch_size}, so its place in the epoch is unknown; set data.batch_size="
                f"{state['batch_size']}, or start from the weights with model.checkpoint= instead."
            )
        self._resume = dict(state)


def _already_a_batch(batch):
    return batch
