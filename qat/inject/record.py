"""One forward of a network, written down: which torch calls it makes, where, and which values flow between them."""

import contextlib
import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.addresses import START, Transitions
from qat.inject.operations import Kind, Operation, kind_of, never_negative, operation_of, out_of_place, writes_in_place

#: A value of the network: ("input", path) or ("call", address, index of the output).
ValueId = tuple

#: Where a tensor stands in the arguments of a call: ("args", 0), ("args", 0, 1) for a list, ("kwargs", "weight").
Slot = tuple


@dataclass(frozen=True)
class Operand:
    """One floating-point tensor among the arguments of a call.

    value: the value of the network it is, None for a constant (a parameter, a buffer, or made from those).
    constant: name of the parameter or buffer, "" for a derived constant, None for a value.
    """

    slot: Slot
    value: ValueId | None
    constant: str | None
    shape: tuple[int, ...]


@dataclass
class Call:
    """Every execution of one address, united: a loop runs it several times.

    layer: the name shown to users, unique. types: class names of the innermost module and its bases, or the operation's.
    source: file:line. produces: number of floating-point tensors that come out. alias: out i lies on the grid of these
    operand values (PASS, JOIN). in_place: writes into its first operand. never_negative: of the result.
    """

    address: int
    operation: Operation
    kind: Kind
    layer: str
    module: str
    types: tuple[str, ...]
    source: str
    operands: dict[Slot, set[Operand]] = field(default_factory=dict)
    produces: int = 0
    output_shape: tuple[int, ...] = ()
    in_place: bool = False
    never_negative: bool = False

    def values(self) -> Iterator[ValueId]:
        """The values this call reads."""
        for operands in self.operands.values():
            for operand in sorted(operands, key=str):
                if operand.value is not None:
                    yield operand.value

    def constants(self) -> Iterator[Operand]:
        """The constant operands."""
        for operands in self.operands.values():
            yield from (operand for operand in sorted(operands, key=str) if operand.value is None)


@dataclass
class Recording:
    """Calls by address, the automaton of their order, and the values that come in and go out.

    sequences: training mode -> addresses of the counted calls in the order they ran, for compiled code, which cannot
    look at its own frames. inputs: path -> shape. outputs: values returned. examples: the arguments recorded with.
    """

    calls: dict[int, Call] = field(default_factory=dict)
    transitions: Transitions = field(default_factory=Transitions)
    sequences: dict[bool, tuple[int, ...]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: list[ValueId] = field(default_factory=list)
    checkpointed: bool = False


def is_counted(kind: Kind, args: tuple, kwargs: dict) -> bool:
    """Whether a call takes part in addressing: it computes or joins, and has a floating-point operand."""
    if kind is Kind.PASS or kind is Kind.IGNORE:
        return False
    for argument in args:
        if isinstance(argument, Tensor):
            if argument.is_floating_point():
                return True
        elif isinstance(argument, tuple | list) and any(
            isinstance(x, Tensor) and x.is_floating_point() for x in argument
        ):
            return True
    return any(isinstance(argument, Tensor) and argument.is_floating_point() for argument in kwargs.values())


def tensor_slots(args: tuple, kwargs: dict) -> Iterator[tuple[Slot, Tensor]]:
    """Every tensor among the arguments of a call, with its slot."""
    for index, argument in enumerate(args):
        if isinstance(argument, Tensor):
            yield ("args", index), argument
        elif isinstance(argument, tuple | list):
            for position, entry in enumerate(argument):
                if isinstance(entry, Tensor):
                    yield ("args", index, position), entry
    for name, argument in kwargs.items():
        if isinstance(argument, Tensor):
            yield ("kwargs", name), argument
        elif isinstance(argument, tuple | list):
            for position, entry in enumerate(argument):
                if isinstance(entry, Tensor):
                    yield ("kwargs", name, position), entry


def output_tensors(result) -> list[Tensor]:
    """The floating-point tensors a call returned, in order."""
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() else []
    if isinstance(result, tuple | list):
        return [entry for entry in result if isinstance(entry, Tensor) and entry.is_floating_point()]
    return []


def bind_examples(module: nn.Module, example_inputs) -> tuple[tuple, dict]:
    """`example_inputs` (a tensor, a tuple of positional or a dict of keyword arguments) as (args, kwargs).

    A batch of one is repeated, so that batch norm can train on it and the batch dimension can be told from a constant.
    """
    if isinstance(example_inputs, dict):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, tuple | list):
        args, kwargs = tuple(example_inputs), {}
    else:
        args, kwargs = (example_inputs,), {}
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors:
        raise PreparationError(
            f"example_inputs hold no tensor but {type(example_inputs).__name__}; pass one batch of inputs."
        )
    for tensor in tensors:
        if tensor.layout is not torch.strided or tensor.is_complex():
            raise PreparationError(
                f"an example input is {tensor.layout} of {tensor.dtype}; integers need dense real tensors."
            )
        if tensor.dim() and not tensor.shape[0]:
            raise PreparationError(
                f"an example input has shape {tuple(tensor.shape)}, an empty batch; pass at least one sample."
            )
    if all(tensor.dim() == 0 or tensor.shape[0] == 1 for tensor in tensors):
        args, kwargs = pytree.tree_map(_repeat_batch, (args, kwargs))
    try:
        inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise PreparationError(f"example_inputs do not fit {type(module).__name__}.forward: {error}.") from error
    return args, kwargs


def _repeat_batch(leaf):
    return leaf.repeat(2, *[1] * (leaf.dim() - 1)) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def input_paths(module: nn.Module, args: tuple, kwargs: dict) -> list[tuple[str, Tensor]]:
    """Every tensor among the inputs with its name: the argument's, with the place inside where it is a structure."""
    signature = inspect.signature(module.forward)
    arguments = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    named = []
    for path, leaf in pytree.tree_flatten_with_path(arguments)[0]:
        if isinstance(leaf, Tensor):
            named.append((".".join(str(_key(step)) for step in path), leaf))
    return named


def _key(step):
    return getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))


@contextlib.contextmanager
def _undisturbed(module: nn.Module):
    """Leave buffers, modes and random states as they are."""
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    modes = {name: part.training for name, part in module.named_modules()}
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = sorted({parameter.device.index for parameter in module.parameters() if parameter.is_cuda})
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        for name, part in module.named_modules():
            part.training = modes[name]
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])


def record(module: nn.Module, args: tuple, kwargs: dict) -> Recording:
    """Run `module` once in train and once in eval mode and write down what it calls."""
    recording = Recording()
    recorder = _Recorder(module, recording)
    with _undisturbed(module), recorder.module_stack():
        for training in (True, False):
            module.train(training)
            recorder.run(training, args, kwargs)
    return recording


class _Recorder(TorchFunctionMode):
    """Writes every torch call of one forward into a `Recording`."""

    def __init__(self, module: nn.Module, recording: Recording):
        super().__init__()
        self.module = module
        self.recording = recording
        self.constants = {id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())}
        self.modules = {id(part): name for name, part in module.named_modules()}
        self.leaves = {name: not list(part.children()) for name, part in module.named_modules()}
        self.types = {
            name: tuple(base.__name__ for base in type(part).__mro__[:-2]) for name, part in module.named_modules()
        }
        self.addresses: dict[tuple, int] = {}
        self.layers: dict[str, int] = {}

    @contextlib.contextmanager
    def module_stack(self):
        """Know which module runs, while inside."""
        self.stack: list[str] = [""]
        handles = []
        for name, part in self.module.named_modules():
            if part is self.module:
                continue
            handles.append(part.register_forward_pre_hook(self._enter))
            handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, part, inputs):
        self.stack.append(self.modules[id(part)])

    def _leave(self, part, inputs, outputs):
        self.stack.pop()

    def run(self, training: bool, args: tuple, kwargs: dict) -> None:
        """One forward in one mode."""
        self.values: dict[int, ValueId] = {}
        self.alive: list = []  # ids stay unique only while their tensors live
        self.replaced: dict[int, Tensor] = {}
        self.stale: dict[int, str] = {}  # tensors whose memory an in-place call would have changed, and where
        self.sequence: list[int] = []
        self.previous = START
        self.stack[1:] = []
        for path, leaf in input_paths(self.module, args, kwargs):
            if leaf.is_floating_point():
                self._name(leaf, ("input", path))
                self.recording.inputs[path] = tuple(leaf.shape)
        with torch.no_grad():
            result = recorded_forward(self, self.module, args, kwargs)
        for leaf in pytree.tree_leaves(result):
            leaf = self.replaced.get(id(leaf), leaf)
            if (
                isinstance(leaf, Tensor)
                and id(leaf) in self.values
                and self.values[id(leaf)] not in self.recording.outputs
            ):
                self.recording.outputs.append(self.values[id(leaf)])
            self._refuse_stale(leaf)
        self.recording.sequences[training] = tuple(self.sequence)
        del self.values, self.alive, self.replaced, self.stale

    def _refuse_stale(self, tensor) -> None:
        if id(tensor) in self.stale:
            raise PreparationError(
                f"{self.stale[id(tensor)]} writes in place into memory that another tensor used later shares (a view of it), "
                "which quantization cannot follow; write to a new tensor instead (x = x + y, torch.cat, torch.where)."
            )

    def _name(self, tensor: Tensor, value: ValueId) -> None:
        self.values[id(tensor)] = value
        self.alive.append(tensor)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.replaced:
            args, kwargs = substitute(self.replaced, args, kwargs)
        operation = operation_of(function)
        kind = kind_of(operation, args, kwargs)
        operands = [
            Operand(slot, self.values.get(id(tensor)), None if id(tensor) in self.values else self.constants.get(id(tensor), ""),
                    tuple(tensor.shape))
            for slot, tensor in tensor_slots(args, kwargs) if tensor.is_floating_point()
        ]  # fmt: skip
        for _, tensor in tensor_slots(args, kwargs):
            self._refuse_stale(tensor)
        counted = is_counted(kind, args, kwargs)
        if kind is Kind.IGNORE or not (counted or any(operand.value for operand in operands)):
            return function(*args, **kwargs)
        frame = addresses.caller(1)
        call = self._call(operation, kind, function, frame)
        in_place = writes_in_place(operation, function, args, kwargs) and kind is not Kind.PASS
        if in_place and any(operand.value for operand in operands):
            function, args, kwargs, written = self._out_of_place(call, operation, function, args, kwargs, frame)
            call.in_place = True
        result = function(*args, **kwargs)
        if counted:
            site = addresses.site_of(frame)
            self.recording.transitions.add(self.previous, site, call.address, call.layer)
            self.previous = call.address
            self.sequence.append(call.address)
        for operand in operands:
            call.operands.setdefault(operand.slot, set()).add(operand)
        if any(operand.value for operand in operands):
            outputs = output_tensors(result)
            call.produces = max(call.produces, len(outputs))
            call.output_shape = tuple(outputs[0].shape) if outputs else ()
            call.never_negative = never_negative(operation, args, kwargs)
            for index, output in enumerate(outputs):
                if id(output) not in self.values or kind is not Kind.PASS:
                    self._name(output, ("call", call.address, index))
            if call.in_place and outputs:
                self.replaced[id(written)] = outputs[0]
                self.alive.append(written)
        return result

    def _call(self, operation: Operation, kind: Kind, function, frame) -> Call:
        path = self.stack[-1]
        site = addresses.site_of(frame)
        key = (tuple(self.stack), site, operation.name)
        if addresses.inside_checkpoint(frame) == "reentrant":
            raise PreparationError(
                f"{addresses.source_of(frame)} runs under reentrant activation checkpointing, whose recomputation cannot be "
                "followed; pass use_reentrant=False to torch.utils.checkpoint.checkpoint."
            )
        if addresses.inside_checkpoint(frame):
            self.recording.checkpointed = True
        if key not in self.addresses:
            address = self.addresses[key] = len(self.addresses)
            owned = self.leaves[path] and path
            base = path if owned else ".".join(filter(None, (path, operation.name)))
            count = self.layers[base] = self.layers.get(base, 0) + 1
            self.recording.calls[address] = Call(
                address=address,
                operation=operation,
                kind=kind,
                layer=base if count == 1 else f"{base}#{count}",
                module=path,
                types=self.types[path] if owned else (operation.name,),
                source=addresses.source_of(frame),
            )
        return self.recording.calls[self.addresses[key]]

    def _out_of_place(self, call: Call, operation, function, args, kwargs, frame):
        """The call rewritten to leave its operand alone; later uses of the operand see the result instead."""
        source = addresses.source_of(frame)
        rewritten = out_of_place(operation, function, args, kwargs)
        if rewritten is None:
            raise PreparationError(
                f"{call.layer} writes in place at {source} ({operation.name}), which quantization cannot follow; write the "
                "result to a new tensor instead (torch.cat, torch.where, x = x + y)."
            )
        written = args[0]
        memory = written.untyped_storage().data_ptr()
        for other in self.alive:
            if other is not written and id(other) not in self.replaced and other.untyped_storage().data_ptr() == memory:
                self.stale[id(other)] = source
        return *rewritten, written


def substitute(replaced: dict[int, Tensor], args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments with tensors that were written in place replaced by what was written."""

    def current(leaf):
        while id(leaf) in replaced:
            leaf = replaced[id(leaf)]
        return leaf

    def visit(argument):
        if isinstance(argument, Tensor):
            return current(argument)
        if type(argument) in (tuple, list):
            return type(argument)(current(entry) for entry in argument)
        return argument

    return tuple(visit(argument) for argument in args), {name: visit(argument) for name, argument in kwargs.items()}


def recorded_forward(mode: TorchFunctionMode, module: nn.Module, args: tuple, kwargs: dict):
    """The module's own forward under `mode`; chains of code positions end at this frame."""
    with mode:
        return module.forward(*args, **kwargs)


addresses.mark_root(recorded_forward.__code__)
