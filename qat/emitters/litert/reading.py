"""What a .tflite file itself says: its operators, their types, and what they compute in floating point."""

from os import PathLike
from pathlib import Path

import numpy
from ai_edge_litert import schema_py_generated as schema

from qat.emitters.litert.model import IDENTIFIER, KIND_NAMES, TYPE_NAMES
from qat.emitters.options import FileOperation
from qat.errors import ExportError

#: The entry of the file's metadata that says what its edges carry.
EDGES = "qat_edges"
_REAL = {"float32", "float16", "float64", "bfloat16"}


def read(path: str | PathLike) -> schema.ModelT:
    """The model of a file. Raises `ExportError` where there is none."""
    path = Path(path)
    if not path.is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise ExportError(f"{path} is no TensorFlow Lite model; export the program again.")
    try:
        return schema.ModelT.InitFromPackedBuf(content)
    except Exception as error:  # whatever reading bytes that are no offsets leads to
        raise ExportError(f"{path} is damaged; export the program again.") from error


def entry(model: schema.ModelT, name: str) -> bytes | None:
    """A buffer of the model's metadata."""
    for found in model.metadata or ():
        if found.name == name.encode():
            return numpy.asarray(model.buffers[found.buffer].data).tobytes()
    return None


def float_ops(path: str | PathLike) -> list[str]:
    """Operators that take or make a real tensor, as "kind name"; empty for an integer file.

    The first QUANTIZE behind an input and the last DEQUANTIZE before an output are not counted.
    """
    found = []
    for graph, operator, kind in _operators(read(path)):
        types = [_type(graph, tensor) for tensor in (*operator.inputs, *operator.outputs) if tensor >= 0]
        first = kind == "QUANTIZE" and operator.inputs[0] in graph.inputs
        last = kind == "DEQUANTIZE" and operator.outputs[0] in graph.outputs
        if _REAL.intersection(types) and not first and not last:
            found.append(f"{kind} {_name(graph, operator)}")
    return found


def operations(path: str | PathLike) -> list[FileOperation]:
    """Every operator of the file, with the bytes of the constants that it is the first to read."""
    model, seen, made = read(path), set(), []
    for graph, operator, kind in _operators(model):
        size = 0
        for tensor in operator.inputs:
            buffer = graph.tensors[tensor].buffer if tensor >= 0 else 0
            if buffer and buffer not in seen and model.buffers[buffer].data is not None:
                seen.add(buffer)
                size += len(model.buffers[buffer].data)
        dtype = _type(graph, operator.inputs[0] if kind == "QUANTIZE" else operator.outputs[0])
        made.append(FileOperation(_name(graph, operator), kind, dtype, size))
    return made


def weight_types(path: str | PathLike) -> dict[str, str]:
    """Types of constants by name: "int4" of weights that take half a byte each."""
    model = read(path)
    return {
        tensor.name.decode(): TYPE_NAMES[tensor.type]
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None
    }


def _operators(model: schema.ModelT):
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.operatorCodes[operator.opcodeIndex]
            yield graph, operator, KIND_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _type(graph: schema.SubGraphT, tensor: int) -> str:
    return TYPE_NAMES[graph.tensors[tensor].type]


def _name(graph: schema.SubGraphT, operator: schema.OperatorT) -> str:
    return graph.tensors[operator.outputs[0]].name.decode()
