"""An ONNX graph in the making: nodes and initializers with unique names, then deterministic bytes."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

import qat
from qat.errors import ExportError
from qat.integer.checks import input_of
from qat.integer.interpreter import edge_dtype
from qat.integer.lengths import Length
from qat.integer.packing import pack
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import AnyGrid, Weight

#: The lowest opset with what a graph uses, so that older runtimes can read it: INT4 came with 21, INT2 with 25.
OPSET, OPSET_INT2 = 21, 25
#: INT4 holds weights of 3 and 4 bits, INT2 of 2; wider ones are INT8.
NARROW_TYPES = {2: (TensorProto.INT2, 2), 3: (TensorProto.INT4, 4), 4: (TensorProto.INT4, 4)}
MICROSOFT_OPSET = 1
PRODUCER = "lightning-qat"
#: Types at the edges of a file.
EDGE_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.int64: TensorProto.INT64,
    torch.uint8: TensorProto.UINT8,
    torch.int32: TensorProto.INT32,
}


@dataclass(frozen=True, eq=False)
class Initializer:
    """A constant tensor of a file. data_type: ONNX's. dims: its shape. content: contiguous, packed where it is narrow.

    Contents of weights are the program's own memory, so that they are copied only when they are written.
    """

    name: str
    data_type: int
    dims: tuple[int, ...]
    content: numpy.ndarray

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.content.nbytes

    @functools.cached_property
    def key(self) -> tuple:
        """What equal tensors have in common."""
        return self.data_type, self.dims, hashlib.sha256(self.content.data).digest()

    def proto(self, place: tuple[str, int] | None = None) -> TensorProto:
        """As ONNX holds it. place: (file, offset) of the content, where that is not in the model."""
        tensor = TensorProto(name=self.name, data_type=self.data_type, dims=self.dims)
        if place is None:
            tensor.raw_data = self.content.tobytes()
            return tensor
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in zip(("location", "offset", "length"), (*place, self.size), strict=True):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class Graph:
    """Collects nodes and initializers.

    program: whose edges the file has; a size that follows the length of an input is computed from that input.
    compact: equal constants are stored once, and nodes have no names besides those of what they make, but where
        `naming` is set.
    """

    def __init__(self, program: IntegerProgram, compact: bool = False) -> None:
        self.program, self.compact = program, compact
        self.naming = False
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Initializer] = {}
        self.opset = OPSET
        self._names: set[str] = set()
        self._weights: dict[tuple, str] = {}
        self._sizes: dict[tuple, str] = {}
        self._outer: Graph | None = None

    def inner(self, program: IntegerProgram) -> "Graph":
        """A graph for an attribute of a node of this one, which sees everything here. program: of one step of a loop.

        Its constants are held here, where the runtime prepares them once, as are weights with what unpacks them.
        """
        graph = Graph(program, self.compact)
        graph.initializers, graph._names, graph._outer = self.initializers, self._names, self
        return graph

    def node(self, kind: str, inputs: Iterable[str], output: str, domain: str = "", **attributes) -> str:
        """Add a node of one output. Returns the output's name."""
        self.claim(output)
        return self._add(kind, inputs, [output], domain=domain, **attributes)[0]

    def nodes_of(self, kind: str, inputs: Iterable[str], outputs: Iterable[str], **attributes) -> tuple[str, ...]:
        """Add a node of several outputs. Returns their names."""
        outputs = tuple(outputs)
        for output in outputs:
            self.claim(output)
        return self._add(kind, inputs, outputs, **attributes)

    def _add(self, kind: str, inputs: Iterable[str], outputs: Sequence[str], **settings) -> Sequence[str]:
        name = None if self.compact and not self.naming else outputs[0]
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=name, **settings))
        return outputs

    def constant(self, name: str, array, dtype) -> str:
        """Add an initializer. array: anything numpy takes. Returns its name.

        A tuple of sizes, of which some follow a length, is computed by nodes instead.
        """
        if isinstance(array, tuple | list) and any(isinstance(entry, Length) for entry in array):
            return self._computed(tuple(array))
        self.claim(name)
        array = numpy.ascontiguousarray(numpy.asarray(array, dtype=dtype)).reshape(numpy.shape(array))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.initializers[name] = Initializer(name, kind, array.shape, array)
        return name

    def weight(self, name: str, weight: Weight) -> str:
        """Add quantized weights at the narrowest type that holds them. Returns the name of the kernel's int8 tensor.

        A narrow type is cast, and scaled where its grid has a step or an offset, by nodes that the runtime computes
        once, when it loads the file. Equal codes, as of a weight that two layers share, are stored once.
        """
        if self._outer is not None:
            return self._outer.weight(name, weight)
        grid = weight.grid
        key = grid, tuple(weight.codes.shape), hashlib.sha256(array_of(weight.codes).tobytes()).digest()
        if key in self._weights:
            return self._weights[key]
        self._weights[key] = name
        if grid.bits not in NARROW_TYPES:
            return self.constant(name, weight.kernel.numpy(), numpy.int8)
        kind, width = NARROW_TYPES[grid.bits]
        if kind == TensorProto.INT2:
            self.opset = OPSET_INT2
        stored = f"{name}/codes"
        self.claim(stored)
        shape, packed = tuple(weight.codes.shape), pack(weight.codes, width).numpy()
        self.initializers[stored] = Initializer(stored, kind, shape, packed)
        if grid.step == 1 and grid.offset == 0:
            return self.node("Cast", [stored], name, to=TensorProto.INT8)
        wide = self.node("Cast", [stored], f"{name}/wide", to=TensorProto.INT32)
        step = self.constant(f"{name}/step", grid.step, numpy.int32)
        wide = self.node("Mul", [wide, step], f"{name}/scaled")
        if grid.offset:
            offset = self.constant(f"{name}/offset", grid.offset, numpy.int32)
            wide = self.node("Add", [wide, offset], f"{name}/shifted")
        return self.node("Cast", [wide], name, to=TensorProto.INT8)

    def cut(self, constant: str, name: str, sizes: tuple[int, ...], first: int) -> str:
        """As much of a constant of `sizes` as inputs of a length take. first: the dimension of sizes[0]."""
        dims = [dim for dim, size in enumerate(sizes) if isinstance(size, Length)]
        if not dims:
            return constant
        starts = self.constant(f"{name}/starts", [0] * len(dims), numpy.int64)
        axes = self.constant(f"{name}/axes", [dim + first for dim in dims], numpy.int64)
        ends = self.constant(f"{name}/ends", tuple(sizes[dim] for dim in dims), numpy.int64)
        return self.node("Slice", [constant, starts, ends, axes], name)

    def filled(self, name: str, shape: tuple[int, ...], number: int) -> str:
        """An int8 tensor of one number, which the runtime fills when it loads the file."""
        sizes = self.constant(f"{name}/shape", shape, numpy.int64)
        value = helper.make_tensor("", TensorProto.INT8, [1], [number])
        return self.node("ConstantOfShape", [sizes], name, value=value)

    def ones(self, name: str, count: int, dtype) -> str:
        """A column (count, 1) of ones, to add up with; of as many as there are where the count follows a length."""
        if not isinstance(count, Length):
            return self.constant(name, numpy.ones((count, 1)), dtype)
        whole = self.constant(f"{name}/whole", numpy.ones((self.longest(count), 1)), dtype)
        return self.cut(whole, name, (count, 1), 0)

    def longest(self, size: int) -> int:
        """What a size is at most: at the longest length, where it follows one."""
        if not isinstance(size, Length):
            return size
        (entry,) = (entry for entry in self.program.lengths if entry.symbol == size.symbol)
        return max(size.at(entry.shortest), size.at(entry.longest))

    def _computed(self, sizes: tuple[int, ...]) -> str:
        """Sizes of which some follow a length, as an int64 tensor (n,) that nodes make once for all that ask for it."""
        key = tuple((entry.describe(),) if isinstance(entry, Length) else entry for entry in sizes)
        if key not in self._sizes:
            parts = [
                self._size(entry) if isinstance(entry, Length) else self._shared(str(entry), [entry]) for entry in sizes
            ]
            name = f"sizes/{','.join(entry.describe() if isinstance(entry, Length) else str(entry) for entry in sizes)}"
            self._sizes[key] = self.node("Concat", parts, name, axis=0) if len(parts) > 1 else parts[0]
        return self._sizes[key]

    def _size(self, size: Length) -> str:
        """A size that follows a length, int64 (1,)."""
        key = (size.describe(),)
        if key in self._sizes:
            return self._sizes[key]
        name = f"sizes/of/{size.describe()}"
        if size.describe() == size.symbol:
            source, dim = input_of(self.program, size.symbol)
            result = self.node("Shape", [source], name, start=dim, end=dim + 1)
        else:
            result = self._size(Length(size.symbol, size.recorded))
            steps = [("Mul", size.multiple, 1), ("Add", size.offset, 0), ("Div", size.divisor, 1)]
            steps = [(kind, number) for kind, number, nothing in steps if number != nothing]
            for place, (kind, number) in enumerate(steps, start=1):
                target = name if place == len(steps) else f"{name}/{place}"
                result = self.node(kind, [result, self._shared(str(number), [number])], target)
        self._sizes[key] = result
        return result

    def _shared(self, text: str, numbers: list[int]) -> str:
        """One int64 constant for all sizes that need it."""
        key = (text, "number")
        if key not in self._sizes:
            self._sizes[key] = self.constant(f"sizes/number/{text}", numbers, numpy.int64)
        return self._sizes[key]

    def repeat(self, constant: str, shape: tuple[int, ...], like: str, target: str) -> str:
        """A constant of batch 1 as often as `like` has samples. shape: without the batch."""
        batch = self.node("Shape", [like], f"{target}/batch", start=0, end=1)
        sizes = self.constant(f"{target}/sizes", shape, numpy.int64)
        wanted = self.node("Concat", [batch, sizes], f"{target}/shape", axis=0)
        return self.node("Expand", [constant, wanted], target)

    def used(self) -> list[Initializer]:
        """The initializers that nodes read; of a compact file of equal ones the first, which all nodes then read."""
        read = set(names_read(self.nodes))
        if not self.compact:
            return [tensor for name, tensor in self.initializers.items() if name in read]
        firsts: dict[tuple, Initializer] = {}
        others = {}
        for name, tensor in self.initializers.items():
            first = firsts.setdefault(tensor.key, tensor) if name in read else tensor
            if first is not tensor:
                others[name] = first.name
        if others:
            _rename_read(self.nodes, others)
        return list(firsts.values())

    def model(
        self,
        program: IntegerProgram,
        metadata: Mapping[str, str] | None = None,
        places: Mapping[str, tuple[str, int]] | None = None,
    ) -> bytes:
        """The bytes of the model with the edges of `program`, equal graphs giving equal bytes.

        metadata: texts by name, which the file says of itself. places: (file, offset) of initializers that are not in
        the model.
        """
        tensors, infos = self.used(), []
        for edges in (program.inputs, program.outputs):
            values = [program.value(edge.value) for edge in edges]
            infos.append(
                [
                    helper.make_tensor_value_info(
                        edge.name, edge_type(edge, value.grid), ["batch", *dims_of(value.shape)]
                    )
                    for edge, value in zip(edges, values, strict=True)
                ]
            )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", MICROSOFT_OPSET)]
        model = helper.make_model(
            helper.make_graph(self.nodes, "qat", *infos),
            opset_imports=opsets,
            producer_name=PRODUCER,
            producer_version=qat.__version__,
            ir_version=helper.find_min_ir_version_for(opsets[:1]),
        )
        for tensor in tensors:
            model.graph.initializer.append(tensor.proto((places or {}).get(tensor.name)))
        helper.set_model_props(model, dict(sorted((metadata or {}).items())))
        return model.SerializeToString(deterministic=True)

    def to_bytes(self, program: IntegerProgram, metadata: Mapping[str, str] | None = None) -> bytes:
        """The checked model as one file. metadata: as for `model`."""
        content = self.model(program, metadata)
        onnx.checker.check_model(content)
        return content

    def claim(self, name: str) -> None:
        """Take a tensor name, once."""
        if name in self._names:
            raise ExportError(f"two tensors of the file would be named {name!r}; rename an input, output or layer.")
        self._names.add(name)


def names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """The tensors that nodes read, and those that graphs inside of them read."""
    for node in nodes:
        yield from node.input
        for graph in graphs_of(node):
            yield from names_read(graph.node)


def _rename_read(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Have nodes, and those of graphs inside of them, read other tensors. names: from old to new."""
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
        for graph in graphs_of(node):
            _rename_read(graph.node, names)


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node runs, such as the body of a loop."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def dims_of(shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """Dimensions of an edge as a file declares them: expressions for what follows a length."""
    return tuple(size.describe() if isinstance(size, Length) else size for size in shape)


def edge_type(edge: Input | Output, grid: AnyGrid) -> int:
    """Type of the tensors that a file takes or gives at an edge whose value is on `grid`."""
    return EDGE_TYPES[edge_dtype(grid, edge.codes)]


def array_of(tensor: Tensor) -> numpy.ndarray:
    """A tensor as numpy."""
    return tensor.detach().cpu().numpy()


def pads_of(padding: tuple[tuple[int, int], ...]) -> list[int]:
    """(before, after) per dimension in ONNX order: all befores, then all afters."""
    return [before for before, _ in padding] + [after for _, after in padding]
