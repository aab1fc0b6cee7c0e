"""Datasets that are whole tensors in memory, read a batch at a time, and how they are split."""

import numpy
import torch
from torch.utils.data import Dataset


class TensorData(Dataset):
    """Inputs and targets read by `draw = epoch * size + index`; an index alone is a draw of epoch 0.

    inputs: (N, ...). targets: (N,) int64.
    """

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor):
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, draws: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.tensor(draws) % len(self)
        return self.inputs[indices], self.targets[indices]

    def __getitem__(self, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.__getitems__([draw])
        return inputs[0], targets[0]


def stratified_split(targets: numpy.ndarray, share: float, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Split indices so that `share` of every class is held out: (kept, held out), both in rising order.

    targets: (N,) class numbers. A pure function of its arguments; each class holds out at least one sample.
    """
    generator = numpy.random.default_rng(seed)
    held_out = []
    for label in numpy.unique(targets):
        members = generator.permutation(numpy.flatnonzero(targets == label))
        held_out.append(members[: max(1, round(share * len(members)))])
    held_out = numpy.sort(numpy.concatenate(held_out))
    return numpy.setdiff1d(numpy.arange(len(targets)), held_out), held_out
