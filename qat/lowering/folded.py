"""Operations on constants that stand where values do: the first state of a loop, and what is computed of it alone.

Such constants lie on the grid of the values that come in their place later. The same rules lower what is computed of
them, into a program of its own, and its kernels run at once: the result is a constant again, exact in every code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.inject.exact import grid_of
from qat.inject.handle import Handle
from qat.integer.kernels import compute
from qat.integer.program import Grid
from qat.lowering.state import CONSTANT, Pending, Program, Quantized, QuantizedConstant, Unlowerable


@dataclass(frozen=True)
class Folded:
    """A computation on constants that waits for the quantizer behind it."""

    pending: Pending


class Constants:
    """Everything that is computed of constants while a network is lowered.

    program: the operations on them; as values of it, a constant has a batch of one.
    """

    def __init__(self, handle: Handle):
        self.handle = handle
        self.program = Program(handle)
        self.codes: dict[str, Tensor] = {}  # of every value so far, (1, ...)
        self.grids: dict[str, Grid] = {}
        self.done = 0  # operations that have run

    def entered(self, node: Node, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments of `node` with constants as values of the program here."""
        node.meta[CONSTANT] = True
        return pytree.tree_map(self._enter, (args, kwargs), is_leaf=is_constant)

    def left(self, result):
        """What a rule made of such arguments, as constants."""
        return pytree.tree_map(self._leave, result, is_leaf=lambda leaf: isinstance(leaf, Quantized | Pending))

    def finish(self, folded: Folded, quantizer_name: str) -> QuantizedConstant:
        """The constant that a computation makes with the quantizer behind it."""
        return self._leave(self.program.finish(folded.pending, quantizer_name))

    def _enter(self, leaf):
        if isinstance(leaf, Folded):
            return leaf.pending
        if not isinstance(leaf, QuantizedConstant) or not is_constant(leaf):
            return leaf
        name, grid = self.program.unique(leaf.quantizer.name), grid_of(leaf.quantizer)
        self.codes[name] = leaf.quantizer.codes(leaf.tensor).to(grid.dtype)
        self.grids[name] = grid
        return Quantized(name, tuple(leaf.tensor.shape[1:]), grid, leaf.quantizer.name)

    def _leave(self, leaf):
        if isinstance(leaf, Pending):
            return Folded(leaf)
        if not isinstance(leaf, Quantized):
            return leaf
        self._run()
        codes, grid = self.codes[leaf.name], leaf.grid
        real = (codes.to(torch.int32) - grid.zero_point).float() * grid.scale
        if leaf.batch_at:
            raise Unlowerable("it moves the batch of a constant; keep dimension 0 for the batch")
        return QuantizedConstant(real, self.handle.quantizers[leaf.quantizer])

    def _run(self) -> None:
        self.grids |= {value.name: value.grid for value in self.program.values}
        self.grids |= {constant.name: constant.grid for constant in self.program.constants}
        self.codes |= {constant.name: constant.codes[None] for constant in self.program.constants}
        for operation in self.program.operations[self.done :]:
            operands = [self.codes[name] for name in operation.inputs]
            sources = [self.grids[name] for name in operation.inputs]
            self.codes[operation.output] = compute(operation, operands, sources, self.grids[operation.output])
        self.done = len(self.program.operations)


def is_constant(leaf) -> bool:
    """Whether a leaf of arguments is a constant in the place of a value: on a value's grid, or computed of such."""
    return isinstance(leaf, Folded) or (isinstance(leaf, QuantizedConstant) and leaf.quantizer.role == "activation")
