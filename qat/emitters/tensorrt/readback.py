"""What a QDQ file says of itself: what it computes in whole numbers of int8 codes, and what in real numbers.

TensorRT decides by the same pattern: an operation between DequantizeLinear and QuantizeLinear runs on int8 tensors.
"""

from collections.abc import Iterator
from os import PathLike

import onnx
from onnx import TensorProto, helper

from qat.emitters.options import FileOperation

#: Nodes that give whole numbers of whole numbers, or move and choose what is there.
WHOLE_KINDS = frozenset(
    """
    Conv MatMul Gemm Add Sub Mul Neg Round Relu Clip ReduceSum ReduceMax MaxPool Pad Reshape Transpose Slice Gather
    GatherElements Expand Concat Where Cast ArgMax TopK CumSum Identity Shape Squeeze Unsqueeze
    """.split()
)
PRODUCTS = ("Conv", "MatMul", "Gemm")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
#: What may stand between a DequantizeLinear and what reads it.
_MOVES = ("Transpose", "Reshape", "Neg")


class QDQFile:
    """The graph of a file, with what made each of its tensors."""

    def __init__(self, path: str | PathLike) -> None:
        self.graph = onnx.load(path, load_external_data=False).graph
        self._makers = {name: node for node in self.graph.node for name in node.output}
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._makers.get(tensor)

    def products(self) -> list[onnx.NodeProto]:
        """Convolutions and products of matrices."""
        return [node for node in self.graph.node if node.op_type in PRODUCTS]

    def additions(self) -> list[onnx.NodeProto]:
        """Additions of two values; those of a bias belong to their product."""
        return [
            node
            for node in self.graph.node
            if node.op_type == "Add" and all(self._is_dequantized(name) for name in node.input)
        ]

    def float_nodes(self) -> list[onnx.NodeProto]:
        """The nodes that compute in real numbers: every node between two quantizations of which one does, and products
        of what is not dequantized int8."""
        regions = self._regions()
        real = {regions[node.name] for node in computing(self.graph) if node.op_type not in WHOLE_KINDS}
        bare = {
            node.name
            for node in self.products()
            if not all(self._is_dequantized(name) for name in node.input[:2])
        }  # fmt: skip
        return [node for node in computing(self.graph) if regions[node.name] in real or node.name in bare]

    def _is_dequantized(self, tensor: str) -> bool:
        """Whether that is what a DequantizeLinear made, moved at most."""
        node = self.maker(tensor)
        while node is not None and node.op_type in _MOVES:
            node = self.maker(node.input[0])
        return node is not None and node.op_type == DEQUANTIZE

    def _regions(self) -> dict[str, str]:
        """By node a name that all share which are between the same quantizations."""
        region: dict[str, str] = {}

        def find(name: str) -> str:
            while region[name] != name:
                region[name] = region[region[name]]
                name = region[name]
            return name

        for node in computing(self.graph):
            region.setdefault(node.name, node.name)
            for tensor in node.input:
                maker = self.maker(tensor)
                if maker is not None and maker.name in region:
                    region[find(node.name)] = find(maker.name)
        return {name: find(name) for name in region}


def computing(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that neither quantize nor dequantize, in order."""
    return (node for node in graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE))


def operations(path: str | PathLike) -> list[FileOperation]:
    """Every node of the file, with the type that TensorRT computes it on and the bytes of constants it reads first."""
    file, read, found = QDQFile(path), set(), []
    real = {node.name for node in file.float_nodes()}
    types = _types_of(file)
    for node in file.graph.node:
        mine = [name for name in node.input if name in file.initializers and name not in read]
        read.update(mine)
        size = sum(_size(file.initializers[name]) for name in mine)
        found.append(FileOperation(node.name, node.op_type, _dtype(node, types, node.name in real), size))
    return found


def _dtype(node: onnx.NodeProto, types: dict[str, int], is_real: bool) -> str:
    """int4 and int8 of codes, int64 of indices, float32 of real numbers."""
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        codes = node.output[0] if node.op_type == QUANTIZE else node.input[0]
        return TensorProto.DataType.Name(types.get(codes, TensorProto.INT8)).lower()
    kinds = {types.get(name) for name in node.output}
    if kinds <= {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}:
        return TensorProto.DataType.Name(next(iter(kinds))).lower()
    return "float32" if is_real else "int8"


def _types_of(file: QDQFile) -> dict[str, int]:
    """ONNX types by tensor, as far as they can be told."""
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(file.graph)).graph
    known = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for entry in (*inferred.input, *inferred.value_info, *inferred.output):
        known[entry.name] = entry.type.tensor_type.elem_type
    return known


def _size(tensor: TensorProto) -> int:
    """Bytes of a constant in the file."""
    external = {entry.key: entry.value for entry in tensor.external_data}
    return int(external["length"]) if "length" in external else len(tensor.raw_data)
