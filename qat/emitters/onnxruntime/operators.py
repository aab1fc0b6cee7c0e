"""An integer program as an ONNX file in QOperator form, on uint8 codes."""

import functools
from collections.abc import Callable, Iterator, Sequence

from qat.emitters.onnxruntime.file_metadata import described
from qat.emitters.onnxruntime.forms import FORMS, wide
from qat.emitters.onnxruntime.forms.loops import scan
from qat.emitters.onnxruntime.graph import Graph
from qat.emitters.onnxruntime.islands import is_island, write_island
from qat.emitters.onnxruntime.writer import Writer, refused, tensor_of
from qat.emitters.refused import Refusal, RefusedError
from qat.integer.operations import Loop, Operation
from qat.integer.program import IntegerProgram


def build(program: IntegerProgram, nonlinear: str = "integer", labels: Sequence[str] = ()) -> bytes:
    """The bytes of the ONNX file. nonlinear: "integer", or "float_island" for `islands.islands_of` in real numbers.

    labels: names of classes. Raises `RefusedError` with all `refusals`.
    """
    return graph_of(program, nonlinear).to_bytes(program, described(program, labels))


def graph_of(program: IntegerProgram, nonlinear: str = "integer") -> Graph:
    """The nodes and weights of the ONNX file. Raises `RefusedError` with all `refusals`."""
    writer, found = _written(program, nonlinear)
    if found:
        raise RefusedError("onnxruntime", found)
    return writer.graph


def refusals(program: IntegerProgram, nonlinear: str = "integer") -> list[Refusal]:
    """What of `program` the runtime has no kernel for; empty where it can be exported."""
    return _written(program, nonlinear)[1]


def _written(program: IntegerProgram, nonlinear: str) -> tuple[Writer, list[Refusal]]:
    """A writer that has taken all of `program` but what it refused, and the reasons."""
    writer, found = Writer(program), []
    parts = (
        (functools.partial(writer.input, edge) for edge in program.inputs),
        _writes(writer, nonlinear),
        (functools.partial(writer.output, edge) for edge in program.outputs),
    )
    for part in parts:
        for add in part:
            try:
                add()
            except RefusedError as error:
                found += error.refusals
    return writer, list(dict.fromkeys(found))


def _writes(writer: Writer, nonlinear: str) -> Iterator[Callable[[], None]]:
    """What adds the nodes of a program, or of one step of a loop, piece by piece."""
    for constant in writer.program.constants:
        yield functools.partial(writer.constant, constant)
    for operation in writer.program.operations:
        if isinstance(operation, Loop):
            yield functools.partial(_write_loop, writer, operation)
        elif wide.is_wide(writer, operation):
            yield functools.partial(wide.write, writer, operation)
        elif is_island(operation, nonlinear):
            yield functools.partial(write_island, writer, operation)
        else:
            yield functools.partial(write, writer, operation)


def _write_loop(writer: Writer, loop: Loop) -> None:
    """A Scan node; its step computes with integers alone."""
    step = Writer(loop.body, writer.graph.inner(loop.body))
    for add in _writes(step, "integer"):
        add()
    scan(writer.graph, step.graph, writer.program, loop, tensor_of, step.tensor_type)


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one operation."""
    if type(operation) not in FORMS:
        raise refused(Refusal.of(operation, "it has no form in ONNX", "export for another runtime"))
    FORMS[type(operation)](writer, operation)
