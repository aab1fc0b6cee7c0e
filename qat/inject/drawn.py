"""Random numbers that a network draws: those of eval mode are in no file."""

from collections.abc import Iterable

from torch import Tensor

from qat.inject.calls import output_tensors
from qat.inject.operations import Operation

_DRAWING = frozenset("""
    rand randn randint randperm rand_like randn_like randint_like normal uniform bernoulli multinomial poisson
    exponential cauchy geometric log_normal random
""".split())  # fmt: skip


class Drawn:
    """The tensors of one forward that are random, or made of such, as far as no input of the network is among them."""

    def __init__(self):
        self.tensors: dict[int, Tensor] = {}  # by their ids, which stay unique while the tensors live

    def note(self, operation: Operation, operands: Iterable[Tensor], result) -> None:
        """Remember what a call drew, or made of drawn numbers."""
        if operation.name in _DRAWING or any(id(operand) in self.tensors for operand in operands):
            self.tensors.update((id(tensor), tensor) for tensor in output_tensors(result))

    def reason_against(self, operands: Iterable[Tensor]) -> str | None:
        """Why a call with these operands has no integer form; None where none of them is random."""
        if any(id(operand) in self.tensors for operand in operands):
            return "random numbers, which no file draws; draw them in train mode alone, as dropout does"
        return None
