"""What an ONNX file says of itself: its nodes, what they compute on, and the bytes of their weights."""

from collections.abc import Iterator, Mapping
from os import PathLike

import onnx
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import graphs_of
from qat.emitters.onnxruntime.session import output_type, type_of
from qat.emitters.onnxruntime.writer import CODES
from qat.emitters.options import FileOperation

_ITEMS_PER_BYTE = {TensorProto.INT4: 2, TensorProto.UINT4: 2, TensorProto.INT2: 4, TensorProto.UINT2: 4}


def operations(path: str | PathLike) -> list[FileOperation]:
    """Every node of the file at `path`, those of loops behind the node that runs them.

    name: that of the value it makes. dtype: of what it makes, as ONNX calls it. bytes: of the constants that it is the
    first to read.
    """
    graph = onnx.load(path, load_external_data=False).graph
    return list(_operations(graph, {}, {}))


def _operations(
    graph: onnx.GraphProto, constants: Mapping[str, TensorProto], types: Mapping[str, int]
) -> Iterator[FileOperation]:
    """Those of a graph and of the graphs inside of it. constants, types: of what is around the graph."""
    constants = dict(constants) | {tensor.name: tensor for tensor in graph.initializer}
    types = dict(types) | {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {info.name: type_of(info) for info in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        read = [constants.pop(name) for name in dict.fromkeys(node.input) if name in constants]
        bodies = list(graphs_of(node))
        if node.op_type == "Scan":
            types |= dict(zip(node.output, map(type_of, bodies[0].output), strict=True))
        for output in node.output:
            types.setdefault(output, output_type(node, types))
        kind = TensorProto.DataType.Name(types[node.output[0]]).lower()
        name = (node.name or node.output[0]).removeprefix(CODES)
        yield FileOperation(name, node.op_type, kind, sum(map(_bytes, read)))
        for body in bodies:
            yield from _operations(body, constants, types)


def _bytes(tensor: TensorProto) -> int:
    """Bytes that a constant takes in the file."""
    external = {entry.key: entry.value for entry in tensor.external_data}
    if "length" in external:
        return int(external["length"])
    if tensor.raw_data:
        return len(tensor.raw_data)
    count = 1
    for size in tensor.dims:
        count *= size
    per_byte = _ITEMS_PER_BYTE.get(tensor.data_type)
    return (
        -(-count // per_byte) if per_byte else count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )
