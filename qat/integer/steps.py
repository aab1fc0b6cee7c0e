"""Operations of a program as torch modules: their tensors are buffers, their arithmetic is the interpreter's kernels.

A kernel takes an operation whose fields hold tensors. A step keeps the operation without them, and makes in every call
one whose tensors are the module's buffers as they are then: moved, loaded, or traced.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qat.integer.checks import Known
from qat.integer.fixed_point import Multiplier
from qat.integer.kernels import compute, loops
from qat.integer.lengths import Length, LengthRange, at_lengths, lengths_in
from qat.integer.operations import Loop, Operation
from qat.integer.packing import codes_in, pack
from qat.integer.program import IntegerProgram
from qat.integer.rescale import Rescaling, rounding_of
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.values import Constant, Value, Weight
from qat.tracing import is_traced

#: Sizes of inputs by the symbol of their `Length`.
Sizes = Mapping[str, int]
Item = TypeVar("Item")


class Steps(nn.Module):
    """All operations of a program, from codes to codes.

    Persistent buffers: the weights and biases of `steps`, and the program's constants.
    """

    def __init__(self, program: IntegerProgram):
        super().__init__()
        for operation in program.float_operations:
            raise operation.error(
                f"computes {operation.function} in real numbers, which a module of integers has no kernel for; drop "
                "the rule that leaves it in float, or export for onnxruntime"
            )
        self.steps = nn.ModuleList(_step(operation, program) for operation in program.operations)
        self.constant_names = [constant.name for constant in program.constants]
        self.constant_sizes = [tuple(map(_plain, constant.sizes)) for constant in program.constants]
        for place, constant in enumerate(program.constants):
            self.register_buffer(f"constant_{place}", constant.codes.clone())
        kept = {edge.value for edge in program.outputs}
        last_use = {name: place for place, step in enumerate(self.steps) for name in (*step.outputs, *step.inputs)}
        self.finished = [
            [name for name, last in last_use.items() if last == place and name not in kept]
            for place in range(len(self.steps))
        ]

    def codes(self, codes: Mapping[str, Tensor], lengths: Sizes) -> dict[str, Tensor]:
        """Codes by value name, those of the outputs among them. codes: of the inputs, by value name, (N, *shape)."""
        held = dict(codes)
        for place, (name, sizes) in enumerate(zip(self.constant_names, self.constant_sizes, strict=True)):
            cuts = tuple(slice(_at(size, lengths)) for size in sizes)
            held[name] = self._buffers[f"constant_{place}"][cuts][None]
        for step, finished in zip(self.steps, self.finished, strict=True):
            results = step([held[name] for name in step.inputs], lengths)
            for name, result in zip(step.outputs, results, strict=True):
                held[name] = result
            for name in finished:
                held.pop(name)
        return held


def _step(operation: Operation, program: IntegerProgram) -> nn.Module:
    if isinstance(operation, Loop):
        return LoopStep(operation)
    return Step(operation, program.named, program.lengths)


class LoopStep(nn.Module):
    """A loop, whose body is the module of one step."""

    def __init__(self, operation: Loop):
        super().__init__()
        self.inputs, self.outputs = operation.inputs, operation.outputs
        self.body = Steps(operation.body)
        self.operation = copied(operation, {"body": frame(operation.body)})

    def forward(self, operands: Sequence[Tensor], lengths: Sizes) -> tuple[Tensor, ...]:
        """As of `Step`."""
        return loops.loop(self.operation, operands, lambda codes: self.body.codes(codes, {}))


class Step(nn.Module):
    """One operation, from the codes of its inputs to those of its output.

    Persistent buffers: `weight`, the codes at their true width (`qat.integer.packing`; those of 8 bits in their shape),
    and `bias`, int32. What else a kernel reads follows from the grids: buffers that no state dict holds, and that are
    whole again when the module leaves the meta device.
    """

    def __init__(self, operation: Operation, known: Known, lengths: Sequence[LengthRange]):
        """known: the values and constants of the program, by name. lengths: those of the program."""
        super().__init__()
        sources, output = [known[name] for name in operation.inputs], known[operation.output]
        self.inputs, self.outputs = operation.inputs, operation.outputs
        self.grids, self.grid = [source.grid for source in sources], output.grid
        sizes = {name: tuple(map(_plain, getattr(operation, name))) for name in operation.follows_length}
        self.sizes = {
            name: entries for name, entries in sizes.items() if any(isinstance(size, tuple) for size in entries)
        }
        self.by_length: tuple[str, int] | None = None
        self._derived: dict[str, Tensor] = {}
        self._unpacked: Weight | None = None
        self._bound: Operation | None = None
        replaced: dict[str, Any] = {}
        if hasattr(operation, "multiplier"):
            replaced["multiplier"] = self._rescaling(operation, sources, output, lengths)
        self._weight = None
        if hasattr(operation, "weight"):
            self._hold_weight(operation.weight)
            replaced["weight"] = None
        if hasattr(operation, "bias"):
            self.register_buffer("bias", operation.bias.clone())
            replaced["bias"] = None
        self.operation, self._paths = self._taken_out(operation, "", replaced)

    def forward(self, operands: Sequence[Tensor], lengths: Sizes) -> tuple[Tensor, ...]:
        """Codes of the outputs. operands: (N, ...) codes of the inputs. lengths: of the program's inputs."""
        return (compute(self.bound(lengths), operands, self.grids, self.grid),)

    def bound(self, lengths: Sizes) -> Operation:
        """The operation with the buffers in its fields, and the sizes of inputs of these lengths.

        Eager code makes one, where it does not follow lengths.
        """
        if is_traced() or self.sizes or self.by_length is not None:
            return self._made(lengths)
        if self._bound is None:
            self._bound = self._made(lengths)
        return self._bound

    def _made(self, lengths: Sizes) -> Operation:
        parts: dict[str, Any] = self._filled(self.operation, self._paths)
        if self._weight is not None:
            parts["weight"] = self._bound_weight()
        if "bias" in self._buffers:
            parts["bias"] = self.bias
        for name, sizes in self.sizes.items():
            parts[name] = tuple(_at(size, lengths) for size in sizes)
        if self.by_length is not None:
            symbol, shortest = self.by_length
            factors, row = parts["multiplier"], lengths[symbol] - shortest
            own = {name: getattr(factors, name).narrow(0, row, 1) for name in ("mantissa", "exponent")}
            parts["multiplier"] = copied(factors, own)
        return copied(self.operation, parts)

    def _rescaling(
        self,
        operation: Operation,
        sources: Sequence[Value | Constant],
        output: Value,
        lengths: Sequence[LengthRange],
    ) -> Rescaling | FixedMultiplier:
        """What stands in the place of the multiplier; where it follows a length, one row for each length."""
        symbols = {size.symbol for source in sources for size in lengths_in(source.shape)}
        refits = type(operation).refitted is not Operation.refitted
        fixed = isinstance(operation.multiplier, FixedMultiplier)
        if fixed and not (symbols and refits):
            return operation.multiplier
        if not symbols or not refits:
            rounding = rounding_of(operation, sources[0].grid)
            return Rescaling.of(operation, output.grid, rounding, operation.reach(sources, output))
        if len(symbols) > 1:
            raise operation.error(
                f"has factors that follow {' and '.join(sorted(symbols))}; a module takes those of one length, so make "
                "it of program.at(...)"
            )
        (entry,) = (entry for entry in lengths if entry.symbol in symbols)
        self.by_length = entry.symbol, entry.shortest
        made: list[Multiplier | FixedMultiplier] = []
        for length in range(entry.shortest, entry.longest + 1):
            sizes = {entry.symbol: length}
            at = [source.at(sizes) if isinstance(source, Constant) else at_lengths(source, sizes) for source in sources]
            made.append(operation.refitted(at, at_lengths(output, sizes)).multiplier)
        parts = {name: torch.cat([getattr(one, name) for one in made]) for name in ("mantissa", "exponent")}
        return dataclasses.replace(operation.multiplier, **parts) if fixed else Rescaling(**parts)

    def _hold_weight(self, weight: Weight) -> None:
        bits = weight.grid.bits
        self.register_buffer("weight", weight.codes.clone() if bits == 8 else pack(weight.codes, bits))
        self.weight_shape = tuple(weight.codes.shape)
        self._weight = copied(weight, {"codes": None, "scale": None, "kernel": None, "kernel_sums": None})

    def _bound_weight(self) -> Weight:
        """The weight as kernels read it: unpacked at the first use, and by traced code in every run."""
        if is_traced():
            return self._unpack()
        if self._unpacked is None:
            self._unpacked = self._unpack()
        return self._unpacked

    def _unpack(self) -> Weight:
        grid = self._weight.grid
        stored = self.weight if grid.bits == 8 else codes_in(self.weight, grid.bits)
        codes = stored.flatten()[: torch.Size(self.weight_shape).numel()].reshape(self.weight_shape)
        kernel = grid.kernel(codes)
        sums = kernel.flatten(1).sum(1, dtype=torch.int32)
        return copied(self._weight, {"codes": codes, "kernel": kernel, "kernel_sums": sums})

    def _taken_out(self, item: Item, path: str, replaced: Mapping[str, Any]) -> tuple[Item, dict]:
        """`item` without its tensors, and where in it they belong: buffer names by field, nested as the fields are."""
        for name, kind in vars(type(item)).items():
            if isinstance(kind, functools.cached_property):
                getattr(item, name)  # what follows from tensors is read while they are there
        changed, paths = dict(replaced), {}
        for name, part in {**vars(item), **replaced}.items():
            if isinstance(part, Tensor):
                changed[name], paths[name] = None, self._derive(f"{path}{name}", part)
            elif dataclasses.is_dataclass(part):
                inner, found = self._taken_out(part, f"{path}{name}_", {})
                if found:
                    changed[name], paths[name] = inner, found
        return copied(item, changed), paths

    def _derive(self, name: str, tensor: Tensor) -> str:
        self._derived[name] = tensor.clone()
        self.register_buffer(name, self._derived[name], persistent=False)
        return name

    def _filled(self, item: Any, paths: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `item` that hold buffers."""
        parts = {}
        for name, path in paths.items():
            if isinstance(path, str):
                parts[name] = self._buffers[path]
            else:
                inner = getattr(item, name)
                parts[name] = copied(inner, self._filled(inner, path))
        return parts

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._unpacked = self._bound = None
        for name, source in self._derived.items():
            self._buffers[name] = source.to(self._buffers[name].device)
        return self

    def _load_from_state_dict(self, *arguments, **named):
        super()._load_from_state_dict(*arguments, **named)
        self._unpacked = self._bound = None

    def __getstate__(self):
        return {**vars(self), "_unpacked": None, "_bound": None}


def copied(item: Item, changed: Mapping[str, Any]) -> Item:
    """A shallow copy of a frozen value with other fields, none of which is checked."""
    made = object.__new__(type(item))
    for name, part in {**vars(item), **changed}.items():
        object.__setattr__(made, name, part)
    return made


def frame(program: IntegerProgram) -> IntegerProgram:
    """What a program has at its edges, and none of its operations."""
    named = {edge.value: program.value(edge.value) for edge in (*program.inputs, *program.outputs)}
    kept = {"values": tuple(named.values()), "operations": (), "constants": (), "named": named, "_of_one_length": {}}
    return copied(program, kept)


def _plain(size: int) -> int | tuple[str, int, int, int]:
    """A size as plain integers: itself, or (symbol, multiple, offset, divisor) of a `Length`."""
    if isinstance(size, Length):
        return size.symbol, size.multiple, size.offset, size.divisor
    return size


def _at(size: int | tuple[str, int, int, int], lengths: Sizes) -> int:
    if isinstance(size, tuple):
        symbol, multiple, offset, divisor = size
        return (multiple * lengths[symbol] + offset) // divisor
    return size
