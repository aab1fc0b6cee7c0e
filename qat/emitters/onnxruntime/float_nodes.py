"""Where the float form of an operation puts its nodes."""

from dataclasses import dataclass

from qat.emitters.onnxruntime.graph import Graph
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import Constant, Value


@dataclass(frozen=True)
class FloatNodes:
    """Where the nodes of one operation go. sources: names of real inputs. target: name of the real result."""

    graph: Graph
    program: IntegerProgram
    operation: Operation
    sources: list[str]
    target: str

    def value(self, name: str) -> Value | Constant:
        """A value or constant of the program."""
        return self.program.value(name)

    def constant(self, key: str, array, dtype) -> str:
        """An initializer called after the result."""
        return self.graph.constant(f"{self.target}/{key}", array, dtype)

    def step(self, key: str, kind: str, inputs: list[str], **attributes) -> str:
        """A node before the one that makes the result."""
        return self.graph.node(kind, inputs, f"{self.target}/{key}", **attributes)

    def add(self, kind: str, inputs: list[str] | None = None, **attributes) -> str:
        """The node that makes the result, of the operation's inputs or of `inputs`."""
        return self.graph.node(kind, self.sources if inputs is None else inputs, self.target, **attributes)
