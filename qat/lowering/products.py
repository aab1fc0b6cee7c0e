"""Products of two values."""

from torch.fx import Node

from qat.integer.program import MatMul, Multiplier, float32
from qat.lowering.state import Pending, Program, Quantized, Unlowerable, batch_shape, module_path


def matmul(program: Program, node: Node, first, second, factor: float = 1.0) -> Pending:
    """aten.matmul, aten.bmm of two values."""
    ranks = [len(operand.shape) for operand in (first, second) if isinstance(operand, Quantized)]
    if not ranks:
        raise Unlowerable("neither operand is on an integer grid")
    first, second = (program.operand(operand, max(ranks)) for operand in (first, second))
    if len(first.shape) != len(second.shape):
        raise Unlowerable(f"its operands have shapes {first.shape} and {second.shape}; give both as many dimensions")
    scale = float32(second.grid.scale * float32(factor))

    def build(name, output, grid, clamp_min, clamp_max):
        return MatMul(
            name=name, source=module_path(node), inputs=(first.name, second.name), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, factor=float32(factor),
            multiplier=Multiplier.from_scales(first.grid.scale, scale, grid.scale),
        )  # fmt: skip

    def times(node: Node, number: float) -> Pending:
        return matmul(program, node, first, second, factor * number)

    return Pending(batch_shape(node), build, times=times)
