"""The float network behind a program, as a torch module: what the latency of its .pt2 file is measured beside.

The same operations with the weights and biases that the integers stand for, in float32, no rounding between; a relu or
a clamp that the integer program fused is one again.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from qat.emitters.description import description
from qat.emitters.pytorch.archive import archived
from qat.emitters.pytorch.float_forms import FLOAT_FORMS, real_constants
from qat.emitters.pytorch.graph import TRACED_BATCH
from qat.errors import ExportError
from qat.files import written_whole
from qat.integer.interpreter import edge_dtype
from qat.integer.kernels import loops
from qat.integer.operations import ComputingOperation, Loop, Operation
from qat.integer.program import IntegerProgram
from qat.integer.reals import dequantize


def emit_float(program: IntegerProgram, path: str | PathLike) -> None:
    """Write the float32 network behind `program` as a .pt2 file with the same inputs and outputs, none of codes; where
    they have lengths, of the recorded one."""
    program = program.with_real_edges().at()
    network = float_module(program)
    examples, shapes = [], []
    for edge in program.inputs:
        value = program.value(edge.value)
        examples.append(torch.zeros(TRACED_BATCH, *value.shape, dtype=edge_dtype(value.grid, False)))
        shapes.append({0: Dim("batch", min=1)})
    graph = torch.export.export(network, tuple(examples), dynamic_shapes=(tuple(shapes),))
    with written_whole(Path(path), archived(graph, description(program))):
        pass


def float_module(program: IntegerProgram) -> nn.Module:
    """The float32 network behind a program of one length. It takes the program's inputs by position, and gives its
    outputs as a tuple."""
    return _Network(program.with_real_edges().at()).eval()


class _Network(nn.Module):
    def __init__(self, program: IntegerProgram):
        super().__init__()
        self.taken, self.given = ([edge.value for edge in edges] for edges in (program.inputs, program.outputs))
        self.constants = [constant.name for constant in program.constants]
        for place, constant in enumerate(program.constants):
            self.register_buffer(f"constant_{place}", dequantize(constant.codes, constant.grid)[None])
        self.steps = nn.ModuleList(
            _LoopStep(operation) if isinstance(operation, Loop) else _Step(operation, program)
            for operation in program.operations
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Real numbers of the outputs. inputs: real ones."""
        held = self.values(dict(zip(self.taken, inputs, strict=True)))
        return tuple(held[name] for name in self.given)

    def values(self, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every real value by name. held: those of the inputs."""
        held = dict(held)
        held |= {name: getattr(self, f"constant_{place}") for place, name in enumerate(self.constants)}
        for step in self.steps:
            results = step([held[name] for name in step.inputs])
            held |= dict(zip(step.outputs, results, strict=True))
        return held


class _LoopStep(nn.Module):
    def __init__(self, operation: Loop):
        super().__init__()
        self.inputs, self.outputs, self.operation = operation.inputs, operation.outputs, operation
        self.body = _Network(operation.body)

    def forward(self, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return loops.loop(self.operation, operands, self.body.values)


class _Step(nn.Module):
    """One operation. Buffers: the real constants that its form reads."""

    def __init__(self, operation: Operation, program: IntegerProgram):
        super().__init__()
        if type(operation) not in FLOAT_FORMS:
            raise ExportError(f"{type(operation).__name__} {operation.name!r} has no float form in torch.")
        self.inputs, self.outputs, self.operation = operation.inputs, operation.outputs, operation
        sources, output = [program.named[name] for name in operation.inputs], program.named[operation.output]
        self.limits = operation.real_limits(output) if isinstance(operation, ComputingOperation) else None
        constants = real_constants(operation, sources, output)
        for name, tensor in constants.items():
            self.register_buffer(name, tensor)

    def forward(self, operands: Sequence[Tensor]) -> tuple[Tensor]:
        result = FLOAT_FORMS[type(self.operation)](self.operation, operands, self._buffers)
        if self.limits is None:
            return (result,)
        low, high = self.limits
        return (F.relu(result) if (low, high) == (0.0, None) else result.clamp(low, high),)
