"""Real programs as ONNX files: float32 between inputs and outputs, weights of few bits at rest.

Linear layers in groups run as MatMulNBits on the packed codes; other weights are unpacked to float32 when the runtime
loads the file. With dynamic activations layers are MatMulInteger and ConvInteger, between nodes that make the codes of
tokens and scale the sums. No such file is integer, and `qat.emitters.onnxruntime.float_ops` lists what it computes.
"""

import json
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from qat.emitters.onnxruntime.real.codes import check_codes, container_bits
from qat.emitters.onnxruntime.real.comparison import NodeComparison, check
from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms import FORMS
from qat.emitters.onnxruntime.real.graph import RealGraph
from qat.emitters.onnxruntime.session import optimized_graph
from qat.errors import ExportError
from qat.files import written_whole
from qat.real.float16 import LEAST_FLOAT16
from qat.real.program import RealProgram

__all__ = ["NodeComparison", "build_real", "check_codes", "container_bits", "emit_real"]


def emit_real(program: RealProgram, path: str | PathLike, labels: Sequence[str] = ()) -> None:
    """Write `program` as an ONNX file, checked layer by layer on random inputs (`comparison`) before it gets its name.

    Raises `ExportError`, and writes none, where a layer of the file computes something else than that of the program.
    """
    with written_whole(Path(path), build_real(program, labels)) as temporary:
        if unfolded := unfolded_weights(temporary):
            raise ExportError(f"ONNX Runtime would unpack weights at every run: {', '.join(unfolded[:5])}.")
        check(program, temporary)


def unfolded_weights(path: str | PathLike) -> list[str]:
    """Constants that nodes of the optimized graph work on again and again, but for a few numbers."""
    graph = optimized_graph(path)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    alone = [list(node.input) for node in graph.node if set(node.input) <= set(sizes)]
    return [name for names in alone for name in names if sizes[name] >= LEAST_FLOAT16]


def build_real(program: RealProgram, labels: Sequence[str] = ()) -> bytes:
    """The bytes of the ONNX file. labels: names of classes, kept in its metadata."""
    graph = RealGraph(program)
    for node in program.nodes:
        form = Form(graph, node)
        form.finish(FORMS[node.function](form))
    for edge in program.outputs:
        graph.node("Identity", [edge.value], edge.name)
    described = {"qat.way": program.way, "qat.activations": program.activations}
    return graph.to_bytes(described | ({"qat.labels": json.dumps(list(labels))} if labels else {}))
