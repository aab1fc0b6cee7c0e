"""The walk over the exported graph of a prepared network, node by node.

The graph is decomposed to core ATen, where every function has one spelling. What depends on no input is computed at
once, and weights behind their quantizers become codes.
"""

import dataclasses
import operator

import sympy
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.errors import ConversionError
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths
from qat.inject.outputs import named_outputs
from qat.lowering import loops
from qat.lowering.exported import export
from qat.lowering.real.builder import Builder
from qat.lowering.real.operands import Coded, Several, Unlisted, dtype_of, shape_of
from qat.lowering.real.rules import RULES
from qat.lowering.state import module_path, source_line
from qat.real.functions import MOVES
from qat.real.nodes import RealInput, RealOutput, Ref
from qat.real.program import RealProgram

aten = torch.ops.aten

#: Composite functions that stay whole: each has one form in a file.
_KEPT = (
    aten.linear.default, aten.matmul.default, aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default,
    aten.gelu.default, aten.silu.default, aten.hardswish.default, aten.hardsigmoid.default, aten.elu.default,
    aten.leaky_relu.default, aten.softplus.default, aten.mish.default, aten.hardtanh.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec, aten.rsub.Scalar,
)  # fmt: skip
_SIZES = {
    operator.add: "size.add", operator.sub: "size.sub", operator.mul: "size.mul", operator.floordiv: "size.floordiv",
}  # fmt: skip


class Walk:
    """Walks the decomposed graph once, in order."""

    def __init__(self, module: nn.Module, handle: Handle):
        self.handle = handle
        exported = export(module, handle, any_length=True).program
        table = torch.export.default_decompositions()
        for kept in _KEPT:
            table.pop(kept, None)
        self.exported = exported.run_decompositions(table)
        self.structure, self.output_names = _output_names(exported.call_spec.out_spec)
        self.builder = Builder(handle)
        self.results: dict[Node, object] = {}
        self.problems: list[str] = []
        self.builder.names.update(self.output_names)
        self.inputs = self._place_inputs()
        self.outputs: list[RealOutput] = []
        for node in self.exported.graph.nodes:
            if node.op == "call_function":
                self.results[node] = self._lowered(node)
        self._place_outputs()
        if self.problems:
            count = "1 operation" if len(self.problems) == 1 else f"{len(self.problems)} operations"
            raise ConversionError(f"{count} cannot be in a file of real numbers: {'; '.join(self.problems)}.")

    def program(self, storage: str) -> RealProgram:
        """The program with real constants as that storage keeps them."""
        inputs = tuple(dataclasses.replace(edge, count=self._count_of(edge.name)) for edge in self.inputs)
        return self.builder.program(inputs, tuple(self.outputs), self.structure, storage)

    def _count_of(self, name: str) -> int:
        """How many integers an input can be: rows of the smallest table that is read with it, or 2 as for a mask."""
        reached, counts = {name}, []
        for node in self.builder.nodes.values():
            if not reached.intersection(node.reads):
                continue
            if node.function == "aten.embedding.default" and node.named["indices"].name in reached:
                table = node.weight
                weights, constants = self.builder.weights, self.builder.constants
                counts.append(weights[table].shape[0] if table in weights else constants[table].shape[0])
            elif node.function in MOVES or node.function == "cast":
                reached.add(node.name)
        return min(counts, default=2)

    def _place_inputs(self) -> tuple[RealInput, ...]:
        """Constants and inputs; integers of other types than int64 come in as int64 and are cast."""
        signature = self.exported.graph_signature
        tensors = {**self.exported.state_dict, **self.exported.constants}
        constants = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        args, kwargs = self.handle.examples
        paths = {id(leaf): path for path, leaf in input_paths(self.handle.original_forward, args, kwargs)}
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        user = [name for name in signature.user_inputs if isinstance(name, str)]
        named = {name: (paths[id(leaf)], leaf) for name, leaf in zip(user, leaves, strict=True)}
        self._name_sizes({name: path for name, (path, _) in named.items()})
        inputs = []
        for node in self.exported.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in constants:
                own = constants[node.name]
                self.results[node] = self.builder.named(own.removeprefix("network."), tensors[own].detach())
            elif node.name in named and node.users:
                inputs.append(self._input(node, *named[node.name]))
        return tuple(inputs)

    def _name_sizes(self, inputs: dict[str, str]) -> None:
        """Call the sizes that follow the inputs after these: the batch, and the lengths."""
        found: dict = {}
        for node in self.exported.graph.nodes:
            if node.op == "placeholder" and node.name in inputs:
                for dim, size in enumerate(node.meta["val"].shape):
                    if not isinstance(size, int) and size.node.expr.is_Symbol:
                        found.setdefault(size.node.expr, f"length_of_{inputs[node.name]}_{dim}" if dim else "batch")
        lengths = [symbol for symbol, name in found.items() if name != "batch"]
        for symbol, name in found.items():
            single = name != "batch" and len(lengths) == 1
            self.builder.symbols[symbol] = sympy.Symbol("length" if single else name)

    def _input(self, node: Node, name: str, example: Tensor) -> RealInput:
        dtype, shape = dtype_of(node.meta["val"]), shape_of(node.meta["val"], self.builder.symbols)
        edge = RealInput(name, "float32" if dtype == "float32" else "int64", shape, tuple(example.shape))
        self.builder.names.add(name)
        self.results[node] = Ref(name)
        if dtype != edge.dtype:
            self.results[node] = self.builder.add(node, "cast", {"input": Ref(name), "dtype": dtype}, name=f"{name}.as")
        return edge

    def _lowered(self, node: Node):
        """What a node becomes: a constant, or a reference to what a node of the program makes."""
        args, kwargs = pytree.tree_map(self._resolve, (tuple(node.args), dict(node.kwargs)))
        leaves = pytree.tree_leaves((args, kwargs))
        try:
            if any(leaf is _FAILED for leaf in leaves):
                return _FAILED
            return self._made(node, args, kwargs, leaves)
        except Unlisted as problem:
            path = module_path(node) or "the network"
            self.problems.append(f"{_name_of(node)} in {path} at {source_line(node)}: {problem}")
            return _FAILED

    def _made(self, node: Node, args: tuple, kwargs: dict, leaves: list):
        made = node.meta.get("val")
        if node.target is operator.getitem:
            return self._part(node, *args)
        if node.target is torch.ops.qat.fake_quantize.default:
            return Coded(args[0], self.handle.quantizers[args[1]])
        if not any(isinstance(leaf, Ref | Coded | Several) for leaf in leaves):
            return node.target(*args, **kwargs)
        if isinstance(made, torch.SymInt | int) and not isinstance(made, bool):
            return self._size(node, args)
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(made)):
            return None  # an assertion
        return RULES.get(node.target, Builder.plain)(self.builder, node, args, kwargs)

    def _size(self, node: Node, args: tuple):
        if node.target is aten.sym_size.int:
            return self.builder.add(node, "size", {"input": args[0], "dim": args[1]}, dtype="size")
        if node.target not in _SIZES:
            raise Unlisted("it computes a size in a way that no file has; use +, -, * and // of sizes")
        return self.builder.add(node, _SIZES[node.target], {"first": args[0], "second": args[1]}, dtype="size")

    def _part(self, node: Node, several, index: int):
        if isinstance(several, Several):
            return self.builder.part(node, several, index)
        return several[index]

    def _resolve(self, argument):
        return self.results.get(argument) if isinstance(argument, Node) else argument

    def _place_outputs(self) -> None:
        node = next(node for node in self.exported.graph.nodes if node.op == "output")
        for name, entry in zip(self.output_names, node.args[0], strict=True):
            result = self.results.get(entry) if isinstance(entry, Node) else None
            if entry is None or result is _FAILED:
                continue
            if not isinstance(result, Ref):
                self.problems.append(f"output {name!r} does not depend on the inputs; leave it out")
            else:
                self.outputs.append(RealOutput(name, result.name))


class _Failed:
    """What a node that was reported already became."""


_FAILED = _Failed()


def _output_names(spec) -> tuple[str, list[str]]:
    numbered = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    structure, named = named_outputs(numbered)
    by_place = {place: name for name, place in named}
    return structure, [by_place[place] for place in range(spec.num_leaves)]


def _name_of(node: Node) -> str:
    if node.target in (loops.BEGIN, loops.END):
        return "the recurrence"
    return getattr(node.target, "__name__", str(node.target)).partition(".")[0]
