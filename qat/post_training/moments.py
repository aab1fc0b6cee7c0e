"""What calibration data says about a layer: moments of its quantized inputs and of the outputs it should have."""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Rows taken of one batch, evenly spread over it: a row is a window of a convolution or a token, and moments of more of
#: them cost time without another rounding.
ROWS = 65_536

#: Second moments of wider rows would take gigabytes; a layer that wide (a linear one behind a flattened image) keeps
#: plain rounding.
MOST_INPUTS = 8192


@dataclass
class Moments:
    """Sums over rows `x` of quantized inputs (groups, rows, I) and wanted outputs `y` (groups, rows, O), in float64.

    count: of rows. inputs: of x, (groups, I). outputs: of y, (groups, O). gram: of x x', (groups, I, I). cross: of
    y x', (groups, O, I). energy: of y squared, (groups, O). The last three are None where there are only means.
    """

    count: int
    inputs: Tensor
    outputs: Tensor
    gram: Tensor | None = None
    cross: Tensor | None = None
    energy: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, second: bool) -> "Moments":
        """Of one batch. second: whether second moments are wanted as well, of rows of at most `MOST_INPUTS`."""
        moments = cls(x.shape[1], x.sum(1, dtype=torch.float64), y.sum(1, dtype=torch.float64))
        if second and x.shape[2] <= MOST_INPUTS:
            moments.gram = (x.transpose(1, 2) @ x).double()
            moments.cross = (y.transpose(1, 2) @ x).double()
            moments.energy = y.square().sum(1, dtype=torch.float64)
        return moments

    def copy(self) -> "Moments":
        """The same sums, to be added to."""
        sums = (self.inputs, self.outputs, self.gram, self.cross, self.energy)
        return Moments(self.count, *(None if each is None else each.clone() for each in sums))

    def add(self, other: "Moments") -> None:
        """Take in those of more rows."""
        self.count += other.count
        for name in ("inputs", "outputs", "gram", "cross", "energy"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None:
                mine += theirs

    def mean_error(self, matrix: Tensor) -> Tensor:
        """The mean of `matrix x - y` of each output, (groups, O); matrix: (groups, O, I)."""
        return ((matrix.double() @ self.inputs.unsqueeze(-1)).squeeze(-1) - self.outputs) / self.count

    def centred(self) -> "Moments":
        """Second moments about the means, for a layer whose bias takes care of those."""
        return Moments(
            self.count,
            torch.zeros_like(self.inputs),
            torch.zeros_like(self.outputs),
            self.gram - self.inputs.unsqueeze(-1) * self.inputs.unsqueeze(-2) / self.count,
            self.cross - self.outputs.unsqueeze(-1) * self.inputs.unsqueeze(-2) / self.count,
            self.energy - self.outputs.square() / self.count,
        )

    def squared_error(self, matrix: Tensor) -> Tensor:
        """The mean of `(matrix x - y)^2` of each output, (groups, O)."""
        matrix = matrix.double()
        error = ((matrix @ self.gram - 2 * self.cross) * matrix).sum(-1) + self.energy
        return error / self.count


def spread(rows: Tensor, most: int = ROWS) -> slice:
    """Which of (groups, rows, I) to take, so that there are at most `most`."""
    return slice(None, None, -(-rows.shape[1] // most))
