"""One node of a real program, with what it reads, as it becomes nodes of an ONNX graph."""

from dataclasses import dataclass

import numpy

from qat.emitters.onnxruntime.real.graph import NUMPY, TYPES, RealGraph, dtype_of, shape_of
from qat.emitters.onnxruntime.real.weights import real_weight
from qat.errors import ExportError
from qat.real.nodes import SIZE, RealNode, Ref, Shape


@dataclass
class Form:
    """Adds the nodes of one node of the program, the last of which carries its name."""

    graph: RealGraph
    node: RealNode
    count: int = 0

    @property
    def rank(self) -> int:
        """Dimensions of what the node makes."""
        return len(self.node.shape)

    def argument(self, name: str, default=None):
        """A plain argument."""
        return self.node.named.get(name, default)

    def shape(self, name: str = "self") -> Shape:
        """The shape of an operand."""
        return shape_of(self.graph.program, self.node.named[name].name)

    def dtype(self, argument) -> str:
        """The type of an argument."""
        if isinstance(argument, Ref):
            return dtype_of(self.graph.program, argument.name)
        return "bool" if isinstance(argument, bool) else "float32" if isinstance(argument, float) else "int64"

    def tensor(self, argument, dtype: str | None = None) -> str:
        """The tensor that an argument is, converted to `dtype` where it has another. Numbers become constants."""
        if not isinstance(argument, Ref):
            return self.graph.number(argument, NUMPY[dtype or self.dtype(argument)])
        own = self.dtype(argument)
        if own == SIZE:
            name = self.add("Squeeze", argument.name)
            own = "int64"
        else:
            name = self.named(argument.name)
        return name if dtype in (None, own) else self.add("Cast", name, to=TYPES[dtype])

    def named(self, name: str) -> str:
        """The tensor of a constant, a weight in real units, an input or another node."""
        if name in self.graph.program.constants:
            return self.graph.real_constant(name)
        if name in self.graph.program.weights:
            return real_weight(self.graph, name)
        return name

    def operand(self, name: str = "self", dtype: str | None = None) -> str:
        """The tensor that the argument `name` is."""
        return self.tensor(self.node.named[name], dtype)

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        """A node; returns the name of its result."""
        self.count += 1
        return self.graph.node(kind, inputs, f"{self.node.name}/{self.count}", domain, **attributes)

    def number(self, value, dtype=numpy.float32) -> str:
        """A constant."""
        return self.graph.number(value, dtype)

    def whole(self, *values: int) -> str:
        """Whole numbers as a constant, one dimension."""
        return self.graph.number(list(values), numpy.int64, (len(values),))

    def sizes(self, sizes) -> str:
        """A shape as a tensor; some of it may be sizes that nodes make."""
        if not any(isinstance(size, Ref) for size in sizes):
            return self.whole(*sizes)
        parts = [size.name if isinstance(size, Ref) else self.whole(size) for size in sizes]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def finish(self, result: str) -> None:
        """Give the result the node's own name."""
        last = self.graph.nodes[-1] if self.graph.nodes else None
        if last is not None and list(last.output) == [result] and result.startswith(f"{self.node.name}/"):
            self.graph.claim(self.node.name)
            last.output[0] = last.name = self.node.name
        else:
            self.graph.node("Identity", [result], self.node.name)

    def refuse(self, reason: str) -> ExportError:
        """An error that names the node."""
        origin = f" (from {self.node.source})" if self.node.source else ""
        return ExportError(f"{self.node.function} {self.node.name!r}{origin} {reason}.")
