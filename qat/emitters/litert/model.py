"""A TensorFlow Lite model in the making: tensors, buffers and operators, and the flatbuffer of them.

Written with the classes of the schema (`ai_edge_litert.schema_py_generated`), which say what the fields mean.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
import numpy
from ai_edge_litert import schema_py_generated as schema

from qat.errors import ExportError

#: Version of the schema.
VERSION = 3
IDENTIFIER = b"TFL3"
#: Offsets of a flatbuffer have 31 bits.
MAX_BYTES = 2**31 - 1
#: The schema wants buffers at multiples of 16 bytes.
ALIGNMENT = 16
#: Operator codes of 127 and more do not fit the first schema's field, which then holds this.
_OLD_CODES = 127
_MAIN = "main"

TYPES = {
    numpy.dtype(numpy.int8): schema.TensorType.INT8,
    numpy.dtype(numpy.int16): schema.TensorType.INT16,
    numpy.dtype(numpy.int32): schema.TensorType.INT32,
    numpy.dtype(numpy.int64): schema.TensorType.INT64,
    numpy.dtype(numpy.uint8): schema.TensorType.UINT8,
    numpy.dtype(numpy.float32): schema.TensorType.FLOAT32,
    numpy.dtype(numpy.bool_): schema.TensorType.BOOL,
}
#: Types of several numbers a byte, by their width.
PACKED_TYPES = {4: schema.TensorType.INT4, 2: schema.TensorType.INT2}
TYPE_NAMES = {number: name.lower() for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
KIND_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Scaling:
    """`real = scale * (number - zero_point)` of a tensor; several scales lie along dimension `axis`."""

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


class Model:
    """One subgraph with one signature."""

    def __init__(self) -> None:
        self.tensors: list[schema.TensorT] = []
        self._buffers: list[numpy.ndarray | None] = [None]
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[int, int] = {}
        self._metadata: list[schema.MetadataT] = []
        self._constants: dict[tuple, int] = {}
        self._quantizations: dict[Scaling, _Quantization] = {}
        self._options: dict[tuple, _Options] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype, scaling: Scaling | None = None, dynamic: bool = True
    ) -> int:
        """Index of a new tensor. shape: with the batch in front, which is 1 and, where `dynamic`, of any size."""
        return self._add(name, shape, TYPES[numpy.dtype(dtype)], scaling, 0, dynamic)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor, with its batch of 1."""
        return tuple(int(size) for size in self.tensors[tensor].shape)

    def scaling(self, tensor: int) -> Scaling | None:
        """The one scale and zero point of a tensor."""
        found = self.tensors[tensor].quantization
        return None if found is None else Scaling((float(found.scale[0]),), int(found.zeroPoint[0]))

    def constant(self, name: str, numbers: numpy.ndarray, scaling: Scaling | None = None) -> int:
        """Index of a tensor that holds `numbers`; equal ones are there once."""
        numbers = numpy.ascontiguousarray(numbers)
        key = (numbers.dtype.str, numbers.shape, numbers.tobytes(), scaling)
        if key not in self._constants:
            buffer = self._put(numbers.view(numpy.uint8).reshape(-1) if numbers.size else numpy.zeros(0, numpy.uint8))
            self._constants[key] = self._add(name, numbers.shape, TYPES[numbers.dtype], scaling, buffer, False)
        return self._constants[key]

    def packed_constant(self, name: str, numbers: numpy.ndarray, bits: int, scaling: Scaling) -> int:
        """Index of a tensor of integers of 4 or 2 bits, several in a byte, the first in the lowest bits."""
        buffer = self._put(packed(numbers, bits))
        return self._add(name, numbers.shape, PACKED_TYPES[bits], scaling, buffer, False)

    def operator(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options=None, second=None) -> None:
        """Add one operator. options: the schema's object for it; second: one of `builtin_options_2`."""
        code = getattr(schema.BuiltinOperator, kind)
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        made.inputs, made.outputs = [numpy.array(list(side), numpy.int32) for side in (inputs, outputs)]
        if options is not None:
            made.builtinOptions = self._options.setdefault(_described(options), _Options(copy.copy(options)))
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        if second is not None:
            made.builtinOptions2 = second
            made.builtinOptions2Type = getattr(schema.BuiltinOptions2, type(second).__name__.removesuffix("T"))
        self._operators.append(made)

    def attach(self, name: str, content: bytes) -> None:
        """Add a buffer of metadata."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._put(numpy.frombuffer(content, numpy.uint8))
        self._metadata.append(entry)

    def to_bytes(self, inputs: dict[str, int], outputs: dict[str, int], description: str) -> bytes:
        """The whole file. inputs, outputs: tensors by the names of the signature."""
        size = sum(len(content) for content in self._buffers if content is not None)
        if size >= MAX_BYTES:
            raise ExportError(
                f"the weights take {size} bytes, and a .tflite file holds less than {MAX_BYTES}, as its offsets have "
                "31 bits; quantize them to fewer bits, or export for onnxruntime."
            )
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = _MAIN, self.tensors, self._operators
        graph.inputs, graph.outputs = [numpy.array(list(edges.values()), numpy.int32) for edges in (inputs, outputs)]
        model = schema.ModelT()
        model.version, model.description = VERSION, description
        model.operatorCodes = [_operator_code(code) for code in self._codes]
        model.subgraphs = [graph]
        model.buffers = [_Buffer(content) for content in self._buffers]
        model.metadata = self._metadata
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_mapped(*edge) for edge in inputs.items()]
        signature.outputs = [_mapped(*edge) for edge in outputs.items()]
        model.signatureDefs = [signature]
        builder = _SharingBuilder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _put(self, content: numpy.ndarray) -> int:
        self._buffers.append(content)
        return len(self._buffers) - 1

    def _add(self, name, shape, kind: int, scaling: Scaling | None, buffer: int, dynamic: bool) -> int:
        made = schema.TensorT()
        made.name, made.type, made.buffer, made.hasRank = name, kind, buffer, True
        made.shape = numpy.array(tuple(shape), numpy.int32)
        if dynamic:
            made.shapeSignature = numpy.array((-1, *shape[1:]), numpy.int32)
        if scaling is not None:
            made.quantization = self._quantizations.setdefault(scaling, _Quantization(scaling))
        self.tensors.append(made)
        return len(self.tensors) - 1


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors, strings and tables of scales once: several tensors may refer to one."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.shared: dict[object, int] = {}

    def CreateNumpyVector(self, x: numpy.ndarray) -> int:
        key = x.dtype.str, x.tobytes()
        if key not in self.shared:
            self.shared[key] = super().CreateNumpyVector(x)
        return self.shared[key]

    def CreateString(self, s, encoding="utf-8", errors="strict") -> int:
        if s not in self.shared:
            self.shared[s] = super().CreateString(s, encoding, errors)
        return self.shared[s]


class _Quantization(schema.QuantizationParametersT):
    """Scales and zero points, one table for all tensors that have them."""

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.scale = numpy.array(scaling.scale, numpy.float32)
        self.zeroPoint = numpy.full(len(scaling.scale), scaling.zero_point, numpy.int64)
        self.quantizedDimension = scaling.axis

    def Pack(self, builder: _SharingBuilder) -> int:
        if self not in builder.shared:
            builder.shared[self] = super().Pack(builder)
        return builder.shared[self]


class _Options:
    """The options of operators, one table for all that have equal ones."""

    def __init__(self, options) -> None:
        self.options = options

    def Pack(self, builder: _SharingBuilder) -> int:
        if self not in builder.shared:
            builder.shared[self] = self.options.Pack(builder)
        return builder.shared[self]


def _described(options) -> tuple:
    """What options say, to compare them."""
    fields = ((name, None if value is None else numpy.array(value).tolist()) for name, value in vars(options).items())
    return type(options).__name__, str(sorted(fields))


class _Buffer(schema.BufferT):
    """A buffer at a multiple of 16 bytes."""

    def __init__(self, content: numpy.ndarray | None) -> None:
        super().__init__()
        self.content = content

    def Pack(self, builder):
        vector = None
        if self.content is not None and len(self.content):
            builder.StartVector(1, len(self.content), ALIGNMENT)
            builder.head -= len(self.content)
            builder.Bytes[builder.head : builder.head + len(self.content)] = self.content.tobytes()
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def packed(numbers: numpy.ndarray, bits: int) -> numpy.ndarray:
    """Integers of 4 or 2 bits, several in a byte, the first in the lowest bits; uint8."""
    share = 8 // bits
    flat = (numbers.reshape(-1).astype(numpy.int8) & (2**bits - 1)).astype(numpy.uint8)
    flat = numpy.pad(flat, (0, -len(flat) % share)).reshape(-1, share)
    return numpy.bitwise_or.reduce(flat << numpy.arange(0, 8, bits, dtype=numpy.uint8), axis=1).astype(numpy.uint8)


def _operator_code(code: int) -> schema.OperatorCodeT:
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, _OLD_CODES), 1
    return made


def _mapped(name: str, tensor: int) -> schema.TensorMapT:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor
    return made
