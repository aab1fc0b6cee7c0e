"""ONNX Runtime sessions: how a file is opened, run, and looked at after the runtime has optimized it."""

import functools
import platform
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor, from_numpy

from qat.emitters.onnxruntime.graph import dims_of, graphs_of
from qat.errors import ExportError
from qat.integer.interpreter import edge_dtype
from qat.integer.program import IntegerProgram

#: Processor features that decide which integer kernels the runtime takes.
CPU_FEATURES = {"avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
VNNI = {"avx512_vnni", "avx_vnni"}
FLOAT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
#: Position of the input whose type is the type of the output, for kernels that do not follow their first input.
_TYPE_INPUT = {"QuantizeLinear": 2, "QLinearConv": 7, "QGemm": 8, "Where": 1}
#: What the runtime calls the types at the edges of a file.
_TYPE_NAMES = {
    torch.float32: "tensor(float)",
    torch.int64: "tensor(int64)",
    torch.uint8: "tensor(uint8)",
    torch.int32: "tensor(int32)",
}


def runtime_version() -> str:
    """The version of ONNX Runtime."""
    return onnxruntime.__version__


@functools.cache
def cpu_features() -> frozenset[str]:
    """Those of `CPU_FEATURES` that this processor has, as far as the system tells."""
    description = Path("/proc/cpuinfo")
    return (
        frozenset(CPU_FEATURES.intersection(description.read_text().split())) if description.exists() else frozenset()
    )


def session_options() -> dict[str, str]:
    """Session entries with which integer kernels are exact on this processor.

    On x86 without VNNI, products of uint8 and int8 are added in pairs in 16 bits, which saturates; with this entry the
    runtime takes a kernel that does not. With VNNI it would only cost: a ResNet-20 took 0.83 ms with and 0.34 without.
    """
    exact = platform.machine().lower() not in ("x86_64", "amd64") or bool(VNNI & cpu_features())
    return {} if exact else {"session.x64quantprecision": "1"}


def session_conditions() -> dict[str, object]:
    """What results of this runtime on this machine hold for; part of a report."""
    return {
        "onnxruntime": runtime_version(),
        "session_options": session_options(),
        "processor": platform.machine(),
        "processor_features": sorted(cpu_features()),
    }


def open_session(
    path: str | PathLike,
    threads: int = 1,
    optimized_path: str | PathLike | None = None,
    model: bytes | None = None,
    optimize: bool = True,
):
    """A CPU session that computes exactly what the file says. optimized_path: where to save the optimized graph.

    model: the content of another model, with the weights that the file at `path` names. optimize: whether the runtime
    may put other nodes in the place of the file's.
    Raises `ExportError` for a file that is missing, damaged, or not for this runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Saving an optimized graph warns that it fits this machine only; that graph is looked at and thrown away.
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in session_options().items():
        options.add_session_config_entry(key, value)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
        # Its weights, which nobody looks at, may be more than a protobuf holds.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{Path(optimized_path).name}.data"
        )
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    try:
        if model is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(Path(path).absolute().parent)
            )
        return onnxruntime.InferenceSession(model or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base of their own
        reason = str(error).rpartition(" : ")[2].strip().partition("\n")[0][:200]
        raise ExportError(f"ONNX Runtime cannot load {path} ({reason}); export the program again.") from error


def check_edges(session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a session whose inputs and outputs are not those of `program`."""
    sides = (session.get_inputs(), program.inputs), (session.get_outputs(), program.outputs)
    found, wanted = [], []
    for entries, edges in sides:
        found.append(", ".join(_described(entry.name, entry.type, entry.shape[1:]) for entry in entries))
        values = [program.value(edge.value) for edge in edges]
        types = [_TYPE_NAMES[edge_dtype(value.grid, edge.codes)] for edge, value in zip(edges, values, strict=True)]
        described = zip(edges, types, values, strict=True)
        wanted.append(", ".join(_described(edge.name, kind, dims_of(value.shape)) for edge, kind, value in described))
    if found != wanted:
        raise ExportError(
            f"{path} is the file of another program: it makes {found[1]} of {found[0]}, and the program makes "
            f"{wanted[1]} of {wanted[0]}; export the program to it."
        )


def _described(name: str, kind: str, shape) -> str:
    """An input or output; its type only where it is no real number."""
    return f"{name} {tuple(shape)}" if kind == "tensor(float)" else f"{name} {kind} {tuple(shape)}"


def run_session(session, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, of inputs by name, in the dtypes of their edges."""
    names = [output.name for output in session.get_outputs()]
    try:
        results = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception as error:  # as above
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
        reason = str(error).strip().partition("\n")[0][:300]
        raise ExportError(f"ONNX Runtime {runtime_version()} fails on inputs of {shapes} ({reason}).") from error
    return {name: from_numpy(numpy.atleast_1d(result)) for name, result in zip(names, results, strict=True)}


def optimized_graph(path: str | PathLike) -> onnx.GraphProto:
    """The graph that ONNX Runtime really runs for the file at `path` on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, optimized_path=optimized)
        return onnx.load(optimized, load_external_data=False).graph


def float_ops(path: str | PathLike) -> list[str]:
    """Nodes of the optimized graph that take or make a real tensor, as "kind name"; empty for an integer file.

    The first QuantizeLinear behind an input and the last DequantizeLinear before an output are not counted; nor are the
    scales of integer kernels, which are constants.
    """
    graph = optimized_graph(path)
    edges = {info.name for info in graph.input}, {info.name for info in graph.output}
    return _float_ops(graph, edges, set(), {})


def _float_ops(
    graph: onnx.GraphProto, edges: tuple[set[str], set[str]], constants: set[str], types: Mapping[str, int]
) -> list[str]:
    """Those of a graph, and of graphs inside of it, which see what is around them.

    edges: inputs and outputs of the file. constants, types: of what is around the graph.
    """
    (inputs, outputs), found = edges, []
    constants = constants | {tensor.name for tensor in graph.initializer}
    types = dict(types) | {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {info.name: type_of(info) for info in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        for body in graphs_of(node):
            found += _float_ops(body, edges, constants, types)
            if node.op_type == "Scan":
                types |= dict(zip(node.output, map(type_of, body.output), strict=True))
        for output in node.output:
            types.setdefault(output, output_type(node, types))
        if node.op_type == "Shape":  # it reads no number
            continue
        moving = [name for name in node.input if name and name not in constants]
        floats = any(types.get(name, TensorProto.FLOAT) in FLOAT_TYPES for name in (*moving, *node.output) if name)
        first = node.op_type == "QuantizeLinear" and set(moving) <= inputs
        last = node.op_type == "DequantizeLinear" and set(node.output) <= outputs
        if floats and not first and not last:
            found.append(f"{node.op_type} {_place(node)}")
    return found


def _place(node: onnx.NodeProto) -> str:
    """The name of a node, or where the runtime put one of its own in, of a tensor of the file beside it."""
    return next((name for name in (node.name, *node.output, *node.input) if "/" in name), node.name)


def unfolded_ops(path: str | PathLike) -> list[str]:
    """Nodes of the optimized graph that only see constants, and so run again and again for nothing."""
    return _unfolded_ops(optimized_graph(path), set())


def _unfolded_ops(graph: onnx.GraphProto, constants: set[str]) -> list[str]:
    """Those of a graph, and of graphs inside of it. constants: around the graph."""
    constants = constants | {tensor.name for tensor in graph.initializer}
    found = [f"{node.op_type} {_place(node)}" for node in graph.node if set(node.input) <= constants]
    for node in graph.node:
        for body in graphs_of(node):
            found += _unfolded_ops(body, constants)
    return found


def type_of(info: onnx.ValueInfoProto) -> int:
    """The ONNX type of an input, an output or a value."""
    return info.type.tensor_type.elem_type


def output_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """Type of what `node` makes; a real number where it cannot be told, so that nothing passes unseen."""
    if node.op_type == "Shape":
        return TensorProto.INT64
    if node.op_type == "Cast":
        return next(attribute.i for attribute in node.attribute if attribute.name == "to")
    if node.op_type in ("DequantizeLinear", "MatMulIntegerToFloat"):
        return TensorProto.FLOAT
    if node.op_type.startswith("QLinear") and node.op_type not in _TYPE_INPUT:
        # The zero point of the output stands last.
        return types.get(node.input[-1], TensorProto.FLOAT)
    position = _TYPE_INPUT.get(node.op_type, 0)
    return types.get(node.input[position], TensorProto.FLOAT) if len(node.input) > position else TensorProto.FLOAT
