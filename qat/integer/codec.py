"""Programs, and the frozen dataclasses that they are made of, to json and back, by the types of their fields.

Tensors go by name to a table beside it. Each type that a field can have has one way out and one way in, so a new kind
of operation needs nothing here.
"""

import dataclasses
import functools
import hashlib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.lengths import Length, LengthRange
from qat.integer.operations import OPERATIONS, MatMul, Mul, Requantize
from qat.integer.packing import pack, unpack
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import MAX_NAME_LENGTH, Constant, Value, Weight, WeightGrid, check_shape

#: Longest list in a field; concatenations are the only ones that are not bound by the rank.
MAX_LIST = 4096
#: Integers in a field: shapes, codes and mantissas, all of which fit.
MAX_INTEGER = 2**53
#: What a `Length` is written as.
LENGTH_PARTS = ("symbol", "recorded", "multiple", "offset", "divisor")
#: What a program is written as, and the kind of each section's entries: operations name theirs.
SECTIONS = {
    "inputs": Input,
    "outputs": Output,
    "values": Value,
    "constants": Constant,
    "operations": None,
    "output_structure": str,
    "lengths": LengthRange,
}
MAX_ENTRIES = 20_000
#: Programs inside of one another: a network, and the step of a loop.
MAX_DEPTH = 2
_KINDS = {kind.__name__: kind for kind in OPERATIONS}


class Encoder:
    """Turns objects into json values; what tensors they hold is in `tensors`, by "owner.field"."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._packed: dict[tuple, str] = {}

    def program(self, program: IntegerProgram) -> dict[str, Any]:
        """All of a program. Names of constants and operations are unique in it, and in the bodies of its loops."""
        return {
            "output_structure": program.output_structure,
            "inputs": [self.fields(edge, "") for edge in program.inputs],
            "outputs": [self.fields(edge, "") for edge in program.outputs],
            "values": [self.fields(value, "") for value in program.values],
            "constants": [self.fields(constant, f"constant.{constant.name}") for constant in program.constants],
            "operations": [
                {"kind": type(operation).__name__} | self.fields(operation, operation.name)
                for operation in program.operations
            ],
            "lengths": [self.fields(entry, "") for entry in program.lengths],
        }

    def fields(self, item: Any, owner: str) -> dict[str, Any]:
        """All fields of a dataclass object."""
        return {
            field.name: self.value(getattr(item, field.name), f"{owner}.{field.name}")
            for field in dataclasses.fields(item)
        }

    def value(self, value: Any, name: str) -> Any:
        """One field's value. name: of its tensors."""
        if isinstance(value, Weight):
            return {
                "shape": list(value.codes.shape),
                "grid": self.fields(value.grid, name),
                "codes": self._put_packed(f"{name}.codes", value),
                "scale": self._put(f"{name}.scale", value.scale),
            }
        if isinstance(value, Tensor):
            return self._put(name, value)
        if isinstance(value, IntegerProgram):
            return self.program(value)
        if dataclasses.is_dataclass(value):
            return self.fields(value, name)
        if isinstance(value, tuple):
            return [self.value(entry, f"{name}.{index}") for index, entry in enumerate(value)]
        if isinstance(value, Length):
            return {part: getattr(value, part) for part in LENGTH_PARTS}
        return value

    def _put_packed(self, name: str, weight: Weight) -> str:
        """Packed codes; those of a weight that was put before are there already, as of an embedding tied to a layer."""
        packed = pack(weight.codes, weight.grid.bits)
        key = weight.grid.bits, tuple(weight.codes.shape), hashlib.sha256(packed.numpy().tobytes()).digest()
        if key not in self._packed:
            self._packed[key] = self._put(name, packed)
        return self._packed[key]

    def _put(self, name: str, tensor: Tensor) -> str:
        # A copy: two layers may share one tensor, which safetensors does not store.
        self.tensors[name] = tensor.detach().cpu().contiguous().clone()
        return name


class Decoder:
    """Turns json values back into objects, checking every field. tensors: by name, each to be used.

    Only packed weights may be used again, by another weight of the same shape and width.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self._unpacked: dict[tuple, Tensor] = {}
        self._depth = 0

    def program(self, document: Any) -> IntegerProgram:
        """A program of its sections. Its own checks raise `ProgramError` where they contradict one another."""
        if not isinstance(document, dict) or set(document) != set(SECTIONS):
            raise ProgramError(f"a program has exactly the sections {', '.join(SECTIONS)}.")
        if self._depth == MAX_DEPTH:
            raise ProgramError("a loop is inside of the body of another loop; a step has none.")
        self._depth += 1
        parts = {name: self._section(document[name], kind, name) for name, kind in SECTIONS.items()}
        self._depth -= 1
        return IntegerProgram(**parts)

    def _section(self, entries: Any, kind: type | None, name: str) -> Any:
        if kind is str:
            return self.value(entries, str, name)
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise ProgramError(f"{name} must be a list of at most {MAX_ENTRIES} entries.")
        return tuple(self._entry(entry, kind, name) for entry in entries)

    def _entry(self, entry: Any, kind: type | None, section: str) -> Any:
        if not isinstance(entry, dict):
            raise ProgramError(f"an entry of {section} is a {type(entry).__name__}; expected an object.")
        # files of before edges carried codes or pictures, before constants followed a length, and before products were
        # rounded in several ways
        if kind is Input:
            entry = {"codes": False, "image": None, "by_reciprocal": False} | entry
        if kind is Output:
            entry = {"codes": False} | entry
        if kind is Constant:
            entry = {"sizes": []} | entry
        if kind is None:
            entry = dict(entry)
            name = entry.pop("kind", None)
            if not isinstance(name, str) or name not in _KINDS:
                raise ProgramError(f"an operation is of kind {str(name)[:40]!r}; known are {', '.join(_KINDS)}.")
            kind = _KINDS[name]
            if kind in (Mul, Requantize):
                entry = {"rounds_first": False} | entry
            if kind is MatMul:
                entry = {"rounds_once": False} | entry
        return self.fields(entry, kind, section)

    def fields(self, entry: Any, kind: type, owner: str) -> Any:
        """A dataclass object of `kind`. Its own checks raise `ProgramError` for values that contradict one another."""
        types = _field_types(kind)
        if not isinstance(entry, dict) or set(entry) != set(types):
            keys = sorted(entry)[:20] if isinstance(entry, dict) else type(entry).__name__
            raise ProgramError(
                f"{owner}: a {kind.__name__} has {str(keys)[:200]}; expected exactly {', '.join(types)}."
            )
        return kind(**{name: self.value(entry[name], types[name], f"{owner}.{name}") for name in types})

    def value(self, value: Any, kind: Any, name: str) -> Any:
        """One field's value of type `kind`. name: for errors."""
        origin = typing.get_origin(kind)
        if origin is tuple:
            return self._tuple(value, typing.get_args(kind), name)
        if origin is types.UnionType:
            return self._one_of(value, typing.get_args(kind), name)
        if kind is Weight:
            return self._weight(value, name)
        if kind is Tensor:
            return self._take(self.value(value, str, name))
        if kind is IntegerProgram:
            return self.program(value)
        if dataclasses.is_dataclass(kind):
            return self.fields(value, kind, name)
        if kind is str and isinstance(value, str) and len(value) <= 2 * MAX_NAME_LENGTH:
            return value
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and isinstance(value, dict):
            return self._length(value, name)
        if kind is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
            return value
        if kind is float and isinstance(value, float) and math.isfinite(value):
            return value
        raise ProgramError(f"{name} is {str(value)[:40]!r}; expected {getattr(kind, '__name__', kind)}.")

    def check_all_used(self) -> None:
        """Refuse tensors that nothing referred to."""
        if self._tensors:
            raise ProgramError(
                f"the tensor {min(self._tensors)!r} belongs to nothing in the program; the file is damaged."
            )

    def _length(self, value: dict, name: str) -> Length:
        """A size that follows a length."""
        if set(value) != set(LENGTH_PARTS) or not isinstance(value["symbol"], str):
            raise ProgramError(f"{name} is {str(value)[:80]!r}; a length has exactly {', '.join(LENGTH_PARTS)}.")
        numbers = {part: self.value(value[part], int, name) for part in LENGTH_PARTS if part != "symbol"}
        if any(isinstance(number, Length) for number in numbers.values()) or numbers["divisor"] < 1:
            raise ProgramError(
                f"{name} is {str(value)[:80]!r}; the parts of a length are numbers, its divisor above 0."
            )
        return Length(value["symbol"][:MAX_NAME_LENGTH], **numbers)

    def _tuple(self, value: Any, kinds: tuple, name: str) -> tuple:
        if not isinstance(value, list) or len(value) > MAX_LIST:
            raise ProgramError(f"{name} is {str(value)[:40]!r}; expected a list of at most {MAX_LIST} entries.")
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise ProgramError(f"{name} has {len(value)} entries; expected {len(kinds)}.")
        return tuple(self.value(entry, kind, name) for entry, kind in zip(value, kinds, strict=True))

    def _one_of(self, value: Any, kinds: tuple[type, ...], name: str) -> Any:
        """A dataclass object of the kind that has just the fields of `value`; nothing, where that is a kind."""
        if value is None and types.NoneType in kinds:
            return None
        for kind in kinds:
            if dataclasses.is_dataclass(kind) and isinstance(value, dict) and set(value) == set(_field_types(kind)):
                return self.fields(value, kind, name)
        raise ProgramError(f"{name} is {str(value)[:40]!r}; expected {' or '.join(kind.__name__ for kind in kinds)}.")

    def _weight(self, value: Any, name: str) -> Weight:
        if not isinstance(value, dict) or set(value) != {"shape", "grid", "codes", "scale"}:
            raise ProgramError(f"{name} must have exactly a shape, a grid, codes and a scale.")
        shape = self.value(value["shape"], tuple[int, ...], f"{name}.shape")
        check_shape(shape, name)
        grid = self.fields(value["grid"], WeightGrid, f"{name}.grid")
        key = self.value(value["codes"], str, f"{name}.codes"), grid.bits, shape
        if key not in self._unpacked:
            packed = self._take(key[0])
            if packed.dtype != torch.uint8:
                raise ProgramError(f"{name} has packed codes of {packed.dtype}; expected torch.uint8.")
            self._unpacked[key] = unpack(packed, grid.bits, shape)
        scale = self._take(self.value(value["scale"], str, f"{name}.scale"))
        return Weight(self._unpacked[key], grid, scale)

    def _take(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ProgramError(f"the tensor {name[:80]!r} is missing, or used twice; the file is damaged.")
        return self._tensors.pop(name)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, localns={"IntegerProgram": IntegerProgram})
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
