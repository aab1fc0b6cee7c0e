"""Loops over the steps of a sequence: one Scan node, whose body is a graph of its own."""

from collections.abc import Callable

from onnx import helper

from qat.emitters.onnxruntime.graph import Graph
from qat.integer.operations import Loop
from qat.integer.program import IntegerProgram
from qat.integer.values import Constant


def scan(
    graph: Graph,
    body: Graph,
    program: IntegerProgram,
    loop: Loop,
    tensor_of: Callable[[str], str],
    type_of: Callable[[str], int],
) -> None:
    """Add the node of a loop of `program`. body: holds the nodes of a step already, made by `Graph.inner`.

    tensor_of: from a value or constant to the tensor that holds it. type_of: from a value of the step to its ONNX type.
    """

    def described(name: str, tensor: str):
        return helper.make_tensor_value_info(tensor, type_of(name), ["batch", *loop.body.value(name).shape])

    count, target = len(loop.sequences), tensor_of(loop.output)
    entries = [program.value(name) for name in loop.inputs]
    like = next(tensor_of(entry.name) for entry in entries if not isinstance(entry, Constant))
    sources = [
        graph.repeat(tensor_of(entry.name), tuple(entry.shape), like, f"{target}/repeated/{entry.name}")
        if isinstance(entry, Constant)
        else tensor_of(entry.name)
        for entry in entries
    ]
    taken = [described(edge.value, tensor_of(edge.value)) for edge in loop.body.inputs]
    taken = [*taken[count:], *taken[:count]]  # the states come first in a Scan
    used, given = {info.name for info in taken}, []
    for place, edge in enumerate(loop.body.outputs):
        tensor = tensor_of(edge.value)
        if tensor in used:  # a state that is also an output, or stays as it is
            tensor = body.node("Identity", [tensor], f"{tensor}/given/{place}")
        used.add(tensor)
        given.append(described(edge.value, tensor))
    graph.nodes_of(
        "Scan",
        [*sources[count:], *sources[:count]],
        [*map(tensor_of, loop.last), target],
        body=helper.make_graph(body.nodes, target, taken, given),
        num_scan_inputs=count,
        scan_input_axes=[1] * count,
        scan_input_directions=[int(loop.reverse)] * count,
        scan_output_axes=[1],
        scan_output_directions=[int(loop.reverse)],
    )
