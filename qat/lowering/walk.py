"""From the graph of `torch.export` to a program, node by node.

Every quantizer is one node of that graph. A computation waits, with the batch norm and activations fused into it, until
the quantizer behind it tells its output grid. A node with no integer form, or with an operand that is not on a grid, is
reported with its module and source line, all of them at once.
"""

import dataclasses
import operator

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.errors import ConversionError, ProgramError
from qat.inject.exact import grid_of
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths
from qat.inject.operations import canonical_name
from qat.inject.outputs import named_outputs
from qat.integer.fixed_point import NARROW_BITS
from qat.integer.program import Grid, Input, IntegerProgram, Output
from qat.lowering import loops
from qat.lowering.chosen import Chosen, quantized_choice
from qat.lowering.computed import computed, name_of
from qat.lowering.elementwise import rescale
from qat.lowering.exported import Exported
from qat.lowering.faithful import Quantization
from qat.lowering.folded import Constants, Folded
from qat.lowering.indices import index_range
from qat.lowering.islands import way_out
from qat.lowering.lengths import bounds_of, lengths_of, recorded_only, sized, widened
from qat.lowering.sizes import collapse_tensors, is_per_size, per_size
from qat.lowering.state import (
    Failed,
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    RealInput,
    Unlowerable,
    known_sizes,
    module_path,
    source_line,
)


class Lowering:
    """Walks the exported graph once, in order."""

    def __init__(self, handle: Handle, exported: Exported):
        self.handle = handle
        self.exported = exported.program
        self.lengths = exported.lengths
        self.builder = Program(handle)
        self.constants = Constants(handle)
        self.narrow: dict[str, Quantized] = {}  # copies of wide values, by the name of those
        self.results: dict[Node, object] = {}
        self.inputs: list[Input] = []
        self.problems: list[str] = []
        self.quantizations: list[Quantization] = []

    def program(self) -> IntegerProgram:
        """The program; raises `ConversionError` with every problem."""
        self._place_constants()
        placeholders = self._user_inputs()
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self.results.setdefault(node, self._input(node, placeholders.get(node.name)))
            elif node.op == "call_function":
                self.results[node] = self._lower(node)
        outputs, structure = self._outputs()
        if self.problems:
            count = "1 operation has" if len(self.problems) == 1 else f"{len(self.problems)} operations have"
            raise ConversionError(f"{count} no integer form: {'; '.join(self.problems)}.")
        known = {entry.name: entry for entry in (*self.builder.values, *self.builder.constants)}
        constants = sized(self.builder.constants, self.builder.operations, known)
        order = [path for path, _ in self._input_paths()]  # integers came in before reals were quantized
        try:
            program = IntegerProgram(
                inputs=tuple(sorted(self.inputs, key=lambda entry: order.index(entry.name))),
                outputs=tuple(outputs),
                values=tuple(self.builder.values),
                operations=tuple(self.builder.operations),
                constants=tuple(constants),
                output_structure=structure,
                lengths=tuple(recorded_only(length) for length in self.lengths.values()),
            )
            return widened(program, bounds_of(self.lengths, self.exported.range_constraints))
        except ProgramError as error:
            raise ConversionError(f"the network cannot run as integers: {error}") from error

    def _place_constants(self) -> None:
        signature = self.exported.graph_signature
        tensors = {**self.exported.state_dict, **self.exported.constants}
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        for node in self.exported.graph.nodes:
            if node.op == "placeholder" and node.name in names:
                self.results[node] = tensors[names[node.name]].detach()

    def _user_inputs(self) -> dict[str, RealInput]:
        paths = {id(leaf): path for path, leaf in self._input_paths()}
        leaves = [leaf for leaf in pytree.tree_leaves(self.handle.examples) if isinstance(leaf, Tensor)]
        names = [name for name in self.exported.graph_signature.user_inputs if isinstance(name, str)]
        return {name: RealInput(paths[id(leaf)], leaf) for name, leaf in zip(names, leaves, strict=True)}

    def _input_paths(self) -> list[tuple[str, Tensor]]:
        """Inputs in the order of the forward's parameters."""
        args, kwargs = self.handle.examples
        return list(input_paths(self.handle.original_forward, args, kwargs))

    def _input(self, node: Node, entry: RealInput | None):
        """An input of the network: integers are codes already, real numbers wait for their quantizer."""
        if entry is None or entry.example.is_floating_point() or not node.users:
            return entry
        try:
            grid = index_range(node, entry.example)
        except Unlowerable as problem:
            self.problems.append(f"input {entry.path!r}: {problem}")
            return Failed()
        self.inputs.append(Input(entry.path, self.builder.unique(f"input.{entry.path}")))
        shape = known_sizes(node, node.meta["val"].shape)[1:]
        return self.builder.value(self.inputs[-1].value, shape, grid, entry.path)

    def _lower(self, node: Node):
        """What a node makes; `Failed` where that has no integer form, which is then among the problems."""
        args, kwargs = pytree.tree_map(self._resolve, (tuple(node.args), dict(node.kwargs)))
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, Failed) for leaf in leaves):
            return Failed()
        made = node.meta.get("val")
        if isinstance(made, torch.SymInt | torch.SymBool | torch.SymFloat):
            return per_size(made, lengths_of(node.graph))
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(made)):
            return made  # an assertion about a size
        try:
            return self._made(node, args, kwargs)
        except Unlowerable as problem:
            self.problems.append(self._problem(node, str(problem)))
        except (TypeError, RuntimeError):
            if not any(map(is_per_size, leaves)):
                raise
            # rules take plain numbers and lengths
            reason = "it takes a number that is computed with the length of an input or the size of the batch"
            self.problems.append(self._problem(node, f"{reason}; use one that is always the same"))
        return Failed()

    def _made(self, node: Node, args: tuple, kwargs: dict):
        """What a node that makes tensors does with what its arguments became."""
        if node.target is operator.getitem and isinstance(args[0], tuple):
            return args[0][args[1]]
        is_per_step = any(isinstance(leaf, loops.PerStep) for leaf in pytree.tree_leaves((args, kwargs)))
        if is_per_step and node.target is not loops.END:
            return loops.of_every_step(self.builder, node, args, kwargs)
        if node.target is torch.ops.qat.fake_quantize.default:
            result = self._quantize(node, *args)
            self.quantizations.append(Quantization(args[1], node, result))
            return result
        if node.target in (loops.BEGIN, loops.END):
            change = loops.begin if node.target is loops.BEGIN else loops.end
            self.builder, result = change(self.builder, node, *collapse_tensors(args))
            return result
        return computed(self.builder, self.constants, node, args, kwargs)

    def _resolve(self, argument):
        return self.results[argument] if isinstance(argument, Node) else argument

    def _problem(self, node: Node, reason: str) -> str:
        is_quantizer = node.target is torch.ops.qat.fake_quantize.default
        name = node.args[1] if is_quantizer else name_of(node)
        if node.target is torch.ops.qat.float_island.default:
            name = node.args[2]
        rest = way_out(self.handle, node, canonical_name(name))
        return f"{name} in {module_path(node) or 'the network'} at {source_line(node)}: {reason}{rest}"

    def _quantize(self, node: Node, x, name: str):
        quantizer = self.handle.quantizers[name]
        x = collapse_tensors(x)
        if isinstance(x, Chosen):
            return quantized_choice(self.builder, node, x, quantizer)
        if isinstance(x, Tensor):
            return QuantizedConstant(x, quantizer)
        grid = grid_of(quantizer)
        if isinstance(x, Pending):
            return self.builder.finish(x, name)
        if isinstance(x, Folded):
            return self.constants.finish(x, name)
        if isinstance(x, RealInput):
            shape = known_sizes(node, node.meta["val"].shape)[1:]
            self.inputs.append(Input(x.path, self.builder.unique(f"input.{x.path}")))
            return self.builder.value(self.inputs[-1].value, shape, grid, name)
        if isinstance(x, Quantized) and x.grid == grid:
            return x
        if isinstance(x, QuantizedConstant) and x.quantizer is quantizer:
            return x
        if isinstance(x, Quantized) and isinstance(x.grid, Grid) and x.grid.bits > NARROW_BITS:
            return self._narrowed(node, x, name)
        raise Unlowerable(f"a value on the grid of {x.quantizer} is quantized again by {name}")

    def _narrowed(self, node: Node, x: Quantized, name: str) -> Quantized:
        """The copy of a wide value that kernels multiply, made once."""
        if x.name not in self.narrow:
            copy = self.builder.finish(rescale(node, x, 1.0), name)
            self.narrow[x.name] = dataclasses.replace(copy, merged=x.merged, batch_at=x.batch_at)
        return self.narrow[x.name]

    def _outputs(self) -> tuple[list[Output], str]:
        node = next(node for node in self.exported.graph.nodes if node.op == "output")
        structure, names = _output_names(self.exported.call_spec.out_spec)
        outputs = []
        for name, entry in zip(names, node.args[0], strict=True):
            if entry is None:  # a loss that was not asked for
                continue
            result = self.results.get(entry) if isinstance(entry, Node) else None
            if isinstance(result, Quantized):
                outputs.append(Output(name, result.name))
                if result.batch_at:
                    self.problems.append(
                        f"output {name!r} has the batch in dimension {result.batch_at}: return it with the batch in "
                        f"front, as by .transpose(0, {result.batch_at})"
                    )
                elif result.merged:
                    self.problems.append(
                        f"output {name!r} has another dimension merged into the batch: return it with the batch alone "
                        "in front, as by .unflatten(0, (x.shape[0], -1))"
                    )
            elif not isinstance(result, Failed):
                self.problems.append(
                    f"output {name!r} is not on an integer grid: return values that the network computes"
                )
        return outputs, structure


def _output_names(spec: pytree.TreeSpec) -> tuple[str, list[str]]:
    """(output_structure, output names) of what the network returns."""
    structure, named = named_outputs(pytree.tree_unflatten([torch.empty(0)] * spec.num_leaves, spec))
    return structure, [name for name, _ in named]
