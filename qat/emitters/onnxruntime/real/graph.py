"""An ONNX graph of a real program in the making."""

from collections.abc import Iterable, Mapping

import numpy
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from qat.errors import ExportError
from qat.integer.packing import pack
from qat.real.nodes import SIZE, Shape
from qat.real.program import RealProgram
from qat.real.weights import RealWeight

#: The lowest opset with what a graph uses: INT4 came with 21, INT2 with 25.
OPSET, OPSET_INT2, MICROSOFT_OPSET = 21, 25, 1
TYPES = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
}  # fmt: skip
NUMPY = {"float32": numpy.float32, "int64": numpy.int64, "int32": numpy.int32, "bool": numpy.bool_, SIZE: numpy.int64}
#: Type and bits that codes take in a file; those of 5, 6 and 7 bits take 8, those of 3 bits 4.
CODES = {2: (TensorProto.INT2, 2), 3: (TensorProto.INT4, 4), 4: (TensorProto.INT4, 4)}
MAX_BYTES = 2**31 - 2**20


class RealGraph:
    """Collects nodes and initializers for `program`."""

    def __init__(self, program: RealProgram) -> None:
        self.program = program
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.opset = OPSET
        self._names: set[str] = set()
        self._shared: dict[tuple, str] = {}
        for edge in program.inputs:
            self.claim(edge.name)

    def claim(self, name: str) -> str:
        """Take a tensor name, once."""
        if name in self._names:
            raise ExportError(f"two tensors of the file would be named {name!r}; rename an input, output or layer.")
        self._names.add(name)
        return name

    def node(self, kind: str, inputs: Iterable[str], output: str, domain: str = "", **attributes) -> str:
        """Add a node of one output. Returns the output's name."""
        self.claim(output)
        # a step inside of a layer is found by its output; a name as well would take more bytes than its weights
        name = "" if "/" in output else output
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, domain=domain, **attributes))
        return output

    def constant(self, name: str, array, dtype) -> str:
        """Add an initializer. array: anything numpy takes. Returns its name."""
        self.claim(name)
        self.initializers[name] = numpy_helper.from_array(numpy.asarray(array, dtype, order="C"), name)
        return name

    def number(self, value, dtype, shape: tuple[int, ...] = ()) -> str:
        """A number, or whole numbers, one constant for all that need it."""
        array = numpy.asarray(value, dtype).reshape(shape or numpy.shape(value))
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._shared:
            self._shared[key] = self.constant(f"number/{len(self._shared)}", array, array.dtype)
        return self._shared[key]

    def once(self, key: tuple, make) -> str:
        """The tensor that `make()` adds nodes for, added for the first that asks."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    # --- what the program holds -------------------------------------------------------------------------------------

    def real_constant(self, name: str) -> str:
        """A constant of the program under its name; real numbers in the type that it stores them as."""
        return self.once(("constant", name), lambda: self._real_constant(name))

    def _real_constant(self, name: str) -> str:
        tensor = self.program.constants[name]
        if tensor.is_floating_point() and self.program.stored_as(tensor) == "float16":
            half = self.constant(f"{name}/float16", tensor.numpy(), numpy.float16)
            return self.node("Cast", [half], name, to=TensorProto.FLOAT)
        array = tensor.numpy()
        return self.constant(name, array, numpy.float32 if tensor.is_floating_point() else array.dtype)

    def scale(self, name: str) -> str:
        """Scales of a weight, float32 (C, groups)."""
        return self.once(("scale", name), lambda: self._scale(name))

    def _scale(self, name: str) -> str:
        scale = self.program.weights[name].scale
        if self.program.stored_as(scale) == "float16":
            half = self.constant(f"{name}/scale/float16", scale.numpy(), numpy.float16)
            return self.node("Cast", [half], f"{name}/scale", to=TensorProto.FLOAT)
        return self.constant(f"{name}/scale", scale.numpy(), numpy.float32)

    def codes(self, name: str, kind: int) -> str:
        """Codes of a weight as tensors of ONNX type `kind`: (C, groups, group_size), the last group filled up with 0.

        One initializer in the narrowest type; what turns it into another the runtime computes once, when it loads.
        """
        stored = self.once(("codes", name), lambda: self._codes(name))
        if self.initializers[stored].data_type == kind:
            return stored
        word = TensorProto.DataType.Name(kind).lower()
        return self.once(("codes", name, kind), lambda: self.node("Cast", [stored], f"{stored}/{word}", to=kind))

    def _codes(self, name: str) -> str:
        weight = self.program.weights[name]
        grouped = padded_groups(weight)
        stored = self.claim(f"{name}/codes")
        if weight.bits not in CODES:
            self.initializers[stored] = numpy_helper.from_array(grouped, stored)
            return stored
        kind, width = CODES[weight.bits]
        if kind == TensorProto.INT2:
            self.opset = OPSET_INT2
        content = pack(torch.from_numpy(grouped), width).numpy().tobytes()
        self.initializers[stored] = TensorProto(name=stored, data_type=kind, dims=grouped.shape, raw_data=content)
        return stored

    # --- the whole --------------------------------------------------------------------------------------------------

    def to_bytes(self, metadata: Mapping[str, str]) -> bytes:
        """The checked model, equal programs giving equal bytes."""
        program = self.program
        inputs = [
            helper.make_tensor_value_info(edge.name, TYPES[edge.dtype], list(edge.shape)) for edge in program.inputs
        ]
        outputs = [
            helper.make_tensor_value_info(
                edge.name, TYPES[dtype_of(program, edge.value)], shape_of(program, edge.value)
            )
            for edge in program.outputs
        ]
        used = {name for node in self.nodes for name in node.input}
        initializers = [tensor for name, tensor in self.initializers.items() if name in used]
        if sum(len(tensor.raw_data) for tensor in initializers) > MAX_BYTES:
            raise ExportError("the weights take more than the 2 GB that one ONNX file holds; give them fewer bits.")
        graph = helper.make_graph(self.nodes, "qat", inputs, outputs, initializers)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", MICROSOFT_OPSET)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            producer_name="lightning-qat",
            ir_version=helper.find_min_ir_version_for(opsets[:1]),
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def padded_groups(weight: RealWeight) -> numpy.ndarray:
    """The codes of a weight, int8 (C, groups, group_size), the last group filled up with 0."""
    channels, count = weight.codes.shape
    groups = weight.scale.shape[1]
    size = min(weight.group_size, count)
    filled = numpy.zeros((channels, groups * size), numpy.int8)
    filled[:, :count] = weight.codes.numpy()
    return filled.reshape(channels, groups, size)


def dtype_of(program: RealProgram, name: str) -> str:
    """The type of a tensor of the program."""
    if name in program.by_name:
        return program.by_name[name].dtype
    if name in program.weights:
        return "float32"
    if name in program.constants:
        tensor = program.constants[name]
        return "float32" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return next(edge.dtype for edge in program.inputs if edge.name == name)


def shape_of(program: RealProgram, name: str) -> Shape:
    """The shape of a tensor of the program."""
    if name in program.by_name:
        return program.by_name[name].shape
    if name in program.weights:
        return program.weights[name].shape
    if name in program.constants:
        return tuple(program.constants[name].shape)
    return next(edge.shape for edge in program.inputs if edge.name == name)
