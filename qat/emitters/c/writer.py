"""Writes the operations of a program as calls of kernels, in one function of C.

Calls are collected first, with their buffers as objects. When all are there, it is known how long each buffer lives,
the arena is planned, and the text is written.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qat.emitters.c.arena import lifetimes, plan
from qat.emitters.c.constants import Constants
from qat.emitters.c.constants import Pointer as Constant
from qat.emitters.c.kernels import WALK, Kernel, KernelTexts
from qat.emitters.c.names import Names
from qat.emitters.c.types import CType, type_of
from qat.emitters.c.views import Buffer, Shape, View, Walk, plain, strides_of, walk_over
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import AnyGrid
from qat.integer.values import Constant as ConstantValue

#: Widest line of the source.
_LINE = 118


class Module:
    """What all functions of one source share: kernels, constants, how many loops and operands walks have."""

    def __init__(self) -> None:
        self.names = Names()
        self.kernels = KernelTexts()
        self.constants = Constants(self.names)
        self.functions: list[str] = []
        self.rank = 1
        self.operands = 1
        self._walks: set[str] = set()

    def walk(self, label: str, walk: Walk) -> Constant:
        """The constant of a walk."""
        self.kernels.need(WALK)
        self.rank = max(self.rank, len(walk.sizes))
        self.operands = max(self.operands, len(walk.strides))
        fields = {"rank": len(walk.sizes), "sizes": walk.sizes, "strides": walk.strides}
        constant = self.constants.record(f"{label}_walk", "walk_t", fields, counted=False)
        self._walks.add(constant.text)
        return constant

    @property
    def constant_bytes(self) -> int:
        """What all constants take where a pointer has 4 bytes."""
        return self.constants.bytes + len(self._walks) * 4 * (1 + self.rank * (1 + self.operands))


@dataclass(frozen=True)
class Pointer:
    """An argument that points to a view. ctype: what it is read as; that of the view by default."""

    view: View
    ctype: CType | None = None

    @property
    def text(self) -> str:
        """C."""
        buffer, ctype = self.view.buffer, self.ctype or self.view.ctype
        if buffer.expression is None:
            at = buffer.place + self.view.offset * buffer.ctype.bytes
            return f"AT({ctype.name}, {at})"
        cast = "" if ctype == buffer.ctype else f"(const {ctype.name} *)"
        return cast + buffer.expression + (f" + {self.view.offset}" if self.view.offset else "")


#: Integers, constants, views, or words of C.
Argument = int | str | Constant | View | Buffer | Pointer | None


@dataclass
class Call:
    """One call. comment: of the operation that begins with it, or None."""

    comment: str | None
    name: str
    arguments: tuple[Argument, ...]

    @property
    def buffers(self) -> list[Buffer]:
        """Every buffer that it reads or writes."""
        found = []
        for argument in self.arguments:
            if isinstance(argument, Pointer):
                argument = argument.view
            if isinstance(argument, View):
                argument = argument.buffer
            if isinstance(argument, Buffer):
                found.append(argument)
        return found


class Writer:
    """Writes one program. sources: where the codes of its inputs lie, by name of their value.

    targets: (name of a value, where its codes have to be at the end, plain), for every output.
    forms: what adds the calls of an operation, by its type.
    """

    def __init__(
        self,
        module: Module,
        program: IntegerProgram,
        sources: Mapping[str, View],
        targets: Sequence[tuple[str, View]],
        forms: Mapping[type[Operation], Callable[["Writer", Operation], None]],
    ) -> None:
        self.module, self.program, self.targets, self.forms = module, program, targets, forms
        self.calls: list[Call] = []
        self._views: dict[str, View] = dict(sources)
        self._copies: dict[tuple[str, Shape], View] = {}
        self._comment: str | None = None
        self._label = ""
        # what is made is made in its place, where it is to be in one place
        self._places = {name: view for name, view in reversed(targets) if name not in sources}

    def write(self) -> tuple[int, str]:
        """(bytes of the arena, the text of the calls of all operations)."""
        for operation in self.program.operations:
            self._comment, self._label = described(operation, self.program), operation.name
            self.forms[type(operation)](self, operation)
        for name, target in self.targets:
            view = self.view(name)
            if view is not target:
                self._comment, self._label = f"/* Output of {quoted(name)} */", name
                self.copy(view, target)
        size = plan(lifetimes([call.buffers for call in self.calls]))
        return size, "\n".join(map(_text_of, self.calls))

    @property
    def used(self) -> set[Buffer]:
        """Every buffer that a call reads or writes."""
        return {buffer for call in self.calls for buffer in call.buffers}

    # what operations read

    def grid(self, name: str) -> AnyGrid:
        """The grid of a value or constant."""
        return self.program.value(name).grid

    def shape(self, name: str) -> Shape:
        """The shape of a value or constant, without the batch."""
        return tuple(self.program.value(name).shape)

    def view(self, name: str) -> View:
        """Where the codes of a value or constant lie."""
        if name not in self._views:
            entry = self.program.value(name)
            assert isinstance(entry, ConstantValue), name
            ctype, shape = type_of(entry.grid), tuple(entry.shape)
            constant = self.module.constants.array(f"{name}_codes", ctype, entry.codes)
            buffer = Buffer(ctype, math.prod(shape), constant.text)
            self._views[name] = View(buffer, shape, strides_of(shape, plain(len(shape))))
        return self._views[name]

    def ordered(self, name: str, order: Sequence[int]) -> View:
        """The codes of a value behind one another, `order` being its dimensions from the slowest to the fastest."""
        view = self.view(name)
        if view.lies_in(order):
            return view
        key = name, tuple(order)
        if key not in self._copies:
            self._copies[key] = self.copied(view, order)
        return self._copies[key]

    # what operations make

    def put(self, name: str, view: View) -> None:
        """Say that the codes of a value are those of `view`."""
        self._views[name] = view

    def new(self, name: str, order: Sequence[int] | None = None) -> View:
        """Room for the codes of a value. order: its dimensions from the slowest to the fastest; None: as they are."""
        shape, ctype = self.shape(name), type_of(self.grid(name))
        strides = strides_of(shape, plain(len(shape)) if order is None else order)
        view = View(Buffer(ctype, math.prod(shape)), shape, strides)
        target = self._places.get(name)
        if target is not None and view.lies_in(plain(len(shape))):
            view = target
        self._views[name] = view
        return view

    def order_like(self, views: Sequence[View], shape: Shape) -> Shape:
        """The order in which the first view of `shape` lies, for a result that is walked over beside it."""
        orders = (view.order for view in views if view.shape == shape)
        return next((order for order in orders if order is not None), plain(len(shape)))

    def scratch(self, ctype: CType, count: int) -> Buffer:
        """Room that the next call alone uses."""
        return Buffer(ctype, max(count, 1))

    def copied(self, view: View, order: Sequence[int]) -> View:
        """A copy of the codes of a view."""
        copy = View(Buffer(view.ctype, math.prod(view.shape)), view.shape, strides_of(view.shape, order))
        self.copy(view, copy)
        return copy

    def copy(self, source: View, target: View) -> None:
        """Copy codes from one view to another of the same shape."""
        from qat.emitters.c.forms.moves import COPY  # the one kernel that the writer itself asks for

        self.call(COPY, (source.ctype,), self.walk([target, source]), source, target)

    def walk(self, views: Sequence[View], single: bool = False) -> Constant:
        """Loops over views of one shape, in the order in which the first lies in memory."""
        return self.module.walk(self._label, walk_over(views[0].shape, [view.strides for view in views], single))

    def array(self, what: str, ctype: CType, values) -> Constant:
        """An array of constants of this operation. what: is part of its name."""
        return self.module.constants.array(f"{self._label}_{what}", ctype, values)

    def record(self, what: str, kind: str, fields: dict[str, object]) -> Constant:
        """A description of this operation that its kernel reads."""
        return self.module.constants.record(f"{self._label}_{what}", kind, fields)

    def call(self, kernel: Kernel, kinds: tuple[CType, ...], *arguments: Argument) -> None:
        """Add a call of a kernel for these types."""
        self.call_named(self.module.kernels.need(kernel, kinds), *arguments)

    def call_named(self, name: str, *arguments: Argument) -> None:
        """Add a call of a function."""
        self.calls.append(Call(self._comment, name, arguments))
        self._comment = None


def described(operation: Operation, program: IntegerProgram) -> str:
    """The comment of an operation: kind, name, where it came from, and its shapes."""
    shapes = " ".join(str(tuple(program.value(name).shape)) for name in operation.inputs)
    origin = f" from {quoted(operation.source)}" if operation.source not in ("", operation.name) else ""
    result = tuple(program.value(operation.output).shape)
    return f"/* {type(operation).__name__} {quoted(operation.name)}{origin}: {shapes} -> {result} */"


def quoted(name: str) -> str:
    """A name between quotes, as JSON has it, that ends no comment and begins none."""
    return json.dumps(name).replace("*/", "*\\u002f").replace("/*", "\\u002f*")


def _text_of(call: Call) -> str:
    words = [_argument(argument) for argument in call.arguments]
    lines, line = [], f"    {call.name}("
    for place, word in enumerate(words):
        piece = word + (", " if place + 1 < len(words) else ");")
        if len(line) + len(piece.rstrip()) > _LINE and place:
            lines.append(line.rstrip())
            line = "        "
        line += piece
    lines.append(line if words else line + ");")
    return "\n".join(([f"    {call.comment}"] if call.comment else []) + lines)


def _argument(argument: Argument) -> str:
    if argument is None:
        return "0"
    if isinstance(argument, Constant):
        return argument.text
    if isinstance(argument, Buffer):
        argument = View(argument, (argument.count,), (1,))
    if isinstance(argument, View):
        argument = Pointer(argument)
    return argument.text if isinstance(argument, Pointer) else str(argument)
