"""One forward of a network, written down: which torch calls it makes, where, and which values flow between them."""

import contextlib
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qat.errors import PreparationError, QATError
from qat.inject import addresses
from qat.inject.addresses import START, AmbiguousCallError
from qat.inject.aliases import Aliases
from qat.inject.arguments import reason_against, reason_against_rounding
from qat.inject.batch import first_tensor, keeps_batch_first, reason_against_batch, reason_against_choice
from qat.inject.calls import (
    Operand,
    Recording,
    ValueId,
    is_counted,
    makes_real,
    output_tensors,
    tensor_slots,
)
from qat.inject.choices import COMPARING, with_constants
from qat.inject.constant_reads import READING
from qat.inject.control_flow import look_at_values
from qat.inject.drawn import Drawn
from qat.inject.flow import with_calls_in_order
from qat.inject.followed import Followed, refuse_unfit
from qat.inject.in_place import OwnMemory, rewritten, writes_values
from qat.inject.inputs import input_paths, key_of, register_dataclasses, tensors_of
from qat.inject.islands import reason_against_island
from qat.inject.known_calls import KnownCalls
from qat.inject.masks import mask_of
from qat.inject.opened import OPENED
from qat.inject.operations import (
    TAKING_A_SHAPE,
    Kind,
    Operation,
    averages_last,
    factor_of,
    first_operand,
    is_square,
    kind_of,
    never_negative,
    operation_of,
    writes_in_place,
    written_operand,
)
from qat.inject.origins import Key, Origins
from qat.inject.pointwise import is_elementary, is_pointwise
from qat.inject.promoted import with_real_operands
from qat.inject.recorded_forward import RunningModules, recorded_forward
from qat.inject.undisturbed import undisturbed
from qat.inject.variants import mask_variants


def record(module: nn.Module, args: tuple, kwargs: dict) -> Recording:
    """Run `module` once in train and once in eval mode and write down what it calls.

    Where two calls cannot be told apart, records again and looks further back on the way of their operands. A network
    that looks at the contents of masks runs with other ones as well, whose calls join the recording.
    """
    reach: dict[Key, int] = {}
    recording = _recorded(module, [(args, kwargs)], reach)
    inputs = [(args, kwargs)]
    for variant in mask_variants(module, args, kwargs, recording.looked_at):
        # what the network makes of other numbers may be nothing that runs, or nothing to be quantized
        with contextlib.suppress(QATError):
            tried = dict(reach)
            recording = _recorded(module, [*inputs, variant], tried)
            inputs, reach = [*inputs, variant], tried
    return recording


def _recorded(module: nn.Module, inputs: Sequence[tuple[tuple, dict]], reach: dict[Key, int]) -> Recording:
    """A recording of forwards on several (args, kwargs), each in train and in eval mode; the first are the examples.

    reach: key of a call -> how many calls further back on the way of its operands tell it apart; more is added to it.
    """
    while True:
        recording = Recording()
        recorder = _Recorder(module, recording, reach)
        try:
            # compiled parts run as they are written, and are refused with their line
            with undisturbed(module), torch.compiler.set_stance("force_eager"), recorder.running.watching():
                for args, kwargs in inputs:
                    for training in (True, False):
                        module.train(training)
                        recorder.run(training, args, kwargs)
                    if recorder.is_example:
                        known = len(recording.calls)
                        recorder.is_example = False
            recording.calls = with_calls_in_order(recording.calls, added=range(known, len(recording.calls)))
            return recording
        except AmbiguousCallError as ambiguous:
            if not recorder.known.look_further_back(ambiguous.previous):
                raise


class _Recorder(TorchFunctionMode):
    """Writes every torch call of one forward into a `Recording`."""

    def __init__(self, module: nn.Module, recording: Recording, reach: dict[Key, int]):
        super().__init__()
        self.module = module
        self.recording = recording
        self.constants = {id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())}
        self.own_memory = OwnMemory(module)
        self.types = {tensor.dtype for tensor in (*module.parameters(), *module.buffers())}
        self.running = RunningModules(module)
        self.known = KnownCalls(module, recording, reach)
        self.is_example = True  # whether the forward runs on the example inputs, which tell what goes in and out
        self.opened: list = []  # functions of several computations that run, one inside of another

    def run(self, training: bool, args: tuple, kwargs: dict) -> None:
        """One forward in one mode."""
        self.values: dict[int, ValueId] = {}
        self.alive: list = []  # ids stay unique only while their tensors live
        self.aliases = Aliases()
        self.drawn = Drawn()
        self.sequence: list[int] = []
        self.previous = START
        self.training = training
        given = tensors_of((args, kwargs))
        self.batch = next((tensor.shape[0] for tensor in given if tensor.dim()), 1)
        self.followed = Followed([*self.module.parameters(), *self.module.buffers(), *given])
        self.origins = Origins(self.known.reach)
        self.running.clear()
        self.integral: set[int] = set()  # values that integers among the inputs decide alone, such as a mask's
        self.codes: dict[int, Tensor] = {}  # tensors that are no real values but depend on the inputs: indices, masks
        self.measured: set[int] = set()  # those of them that depend on real values
        self.sources: dict[int, frozenset[str]] = {}  # paths of the inputs that a value or a code depends on
        self.batch_first: set[int] = set()  # values whose first dimension is known to be the batch
        paths = input_paths(self.module.forward, args, kwargs)
        if self.is_example:
            self.recording.given = tuple(path for path, _ in paths)
        for path, leaf in paths:
            self.sources[id(leaf)] = frozenset({path})
            if leaf.is_floating_point():
                self._name(leaf, ("input", path))
                self.batch_first.add(id(leaf))
                self.recording.inputs[path] = tuple(leaf.shape)
            else:
                self.codes[id(leaf)] = leaf
        with torch.no_grad(), self.followed.watching():
            result = recorded_forward(self, self.module, args, kwargs)
        register_dataclasses(result)
        if self.is_example:
            self._note_returned(result)
        for leaf in pytree.tree_leaves(result):
            (leaf,), _ = self.aliases.current((leaf,), {})
            self._refuse_hidden(leaf)
            self.aliases.refuse_stale(leaf)
            value = self.values.get(id(leaf))
            if value is not None and value not in self.recording.outputs:
                self.recording.outputs.append(value)
        self.recording.add_way(training, self.sequence)
        del self.values, self.integral, self.alive, self.aliases, self.codes, self.measured, self.origins, self.followed
        del self.batch_first, self.sources, self.drawn

    def _note_returned(self, result) -> None:
        """Write down where in the result the outputs are, and which of them no operation on values made."""
        leaves = [
            (tuple(str(key_of(step)) for step in path), self.aliases.current((leaf,), {})[0][0])
            for path, leaf in pytree.tree_flatten_with_path(result)[0] if leaf is not None
        ]  # fmt: skip
        self.recording.returned = tuple(path for path, _ in leaves)
        self.recording.unquantized = tuple(
            path for path, leaf in leaves
            if isinstance(leaf, Tensor) and id(leaf) not in self.values and id(leaf) not in self.codes
        )  # fmt: skip
        self.recording.no_tensors = tuple(
            (path, type(leaf).__name__) for path, leaf in leaves if not isinstance(leaf, Tensor)
        )

    def _refuse_hidden(self, leaf) -> None:
        if isinstance(leaf, Tensor) or not any(
            isinstance(entry, Tensor) for entry in getattr(leaf, "__dict__", {}).values()
        ):
            return
        raise PreparationError(
            f"{type(self.module).__name__}.forward returns a {type(leaf).__name__}, whose tensors cannot be seen; "
            "return a tensor, a tuple or a dict, or register the class with torch.utils._pytree.register_dataclass."
        )

    def _name(self, tensor: Tensor, value: ValueId) -> None:
        self.values[id(tensor)] = value
        self.alive.append(tensor)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        args, kwargs = self.aliases.current(args, kwargs)
        opened = with_real_operands(function, args, kwargs) or OPENED.get(function)
        if opened is not None:
            self.opened.append(function)
            with self:
                result = opened(*args, **kwargs)
            self.opened.pop()
            if result is not NotImplemented:
                return result
        operation = operation_of(function)
        if operation.name == "get":
            read = function(*args, **kwargs)
            if not isinstance(read, Tensor):  # a shape, a type: nothing that a quantizer meets
                return read
        kind = kind_of(operation, args, kwargs)
        if kind is Kind.JOIN:
            args, kwargs, constants = with_constants(operation, args, kwargs)
            self.followed.add(constants)
        self.aliases.check(operation, args, kwargs)
        operands, tensors, others = self._operands(operation, args, kwargs)
        origin = self.origins.of(operands, tensors, self.integral)
        reads_values = any(operand.value is not None for operand in operands)
        sources = frozenset().union(*(self.sources.get(id(tensor), ()) for tensor in (*tensors, *others)))
        depends = bool(sources)
        if operation.name in COMPARING and not self.training:
            self.recording.add_compared(operand.value for operand in operands if operand.value is not None)
        is_real = functools.partial(self._is_real, self.integral)
        measures = any(map(is_real, tensors)) or any(id(tensor) in self.measured for tensor in others)
        counted = is_counted(kind, args, kwargs)
        frame = addresses.caller(1)
        if kind is Kind.IGNORE or not (counted or reads_values):
            result = function(*args, **kwargs)
            self.followed.add(result)
            counted = makes_real(kind, args, kwargs, result)
            if not counted:
                writes = bool(sources) and writes_in_place(operation, function, args, kwargs)
                self._note_codes((result, written_operand(args, kwargs) if writes else None), sources, measures)
                self.drawn.note(operation, tensors, result)
                if operation.name in READING and not self.training and not isinstance(result, Tensor):
                    site = addresses.site_of(frame, by_line=True)
                    self.recording.reads[site] = depends or self.recording.reads.get(site, False)
                looks = depends and not self.training and self.is_example
                look = look_at_values(operation, args, result) if looks else None
                if look is not None:
                    noted = self.recording.looks if measures else self.recording.looks_at_codes
                    noted.append(f"{addresses.source_of(frame)} {look}")
                    self.recording.looked_at |= sources
                self.origins.remember(output_tensors(result), origin)
                return result
            kind = Kind.CAST
        refuse_unfit([tensor for tensor in tensors if tensor.is_nested], operation, self._place(frame))
        for tensor in tensors:
            self.followed.check(tensor, operation, self._place(frame))
        call = self.known.at(
            operation, kind, frame, self.previous, tuple(self.running.paths), origin, self.origins,
            opened=self.opened,
        )  # fmt: skip
        rewrites = depends and writes_values(operation, kind, function, args, kwargs)
        written = written_operand(args, kwargs) if rewrites else None
        own = self.own_memory.holds(written) if id(written) not in self.values else None
        if own is not None and self.training:  # a statistic, no part of what the network computes
            depends = rewrites = False
        if rewrites:
            source = addresses.source_of(frame)
            place = f"{call.module or 'the network'} at {source}"
            function, args, kwargs = rewritten(operation, function, args, kwargs, place, own)
            self.aliases.make_stale(self.followed.sharing(written), written, source)
            operands, tensors, others = self._operands(operation, args, kwargs)
            call.in_place = True
        call.other_dtypes.update(tensor.dtype for tensor in others)
        call.reason = call.reason or reason_against(operation, args, kwargs)
        has_batch_first = id(first_tensor(args, kwargs)) in self.batch_first
        if reads_values and not self.training:  # train mode may mix samples, no file has that
            call.reason = call.reason or self.drawn.reason_against(tensors)
            call.reason = call.reason or reason_against_choice(operation, others, lambda other: id(other) in self.codes)
            if has_batch_first:
                call.reason = call.reason or reason_against_batch(operation, args, kwargs)
        call.island_reason = call.island_reason or reason_against_island(
            operation, function, args, kwargs, lambda tensor: id(tensor) in self.values
        )
        call.pointwise = call.pointwise and is_pointwise(operation, operands, others)
        call.squares = call.squares and is_square(operation, args, kwargs)
        call.averages_last = call.averages_last and averages_last(operation, args, kwargs)
        call.scales = call.scales and factor_of(operation, args, kwargs) is not None
        call.masks = call.masks and mask_of(operation, args, kwargs, is_real) is not None
        result = function(*args, **kwargs)
        self.followed.add(result)
        self.aliases.note_view(operation, args, result)
        if depends:
            refuse_unfit([*tensors, *others, *tensors_of(result)], operation, self._place(frame))
        if counted:
            site = addresses.site_of(frame)
            self.recording.transitions.add(self.previous, site, call.address, call.layer)
            self.previous = call.address
            self.sequence.append(call.address)
        for operand in operands:
            call.operands.setdefault(operand.slot, set()).add(operand)
        # scores come the same way where a batch without padding leaves their mask out
        key = self.known.keys[call.address] if counted and not call.masks else None
        self.origins.remember(output_tensors(result), origin, key)
        if not self.training:
            call.reason = call.reason or reason_against_rounding(operation, tensors, result, self.types)
        if not depends:
            self.drawn.note(operation, tensors, result)
        if depends:
            self._note_codes(result, sources, measures)
            outputs = output_tensors(result)
            self.sources.update((id(output), sources) for output in outputs)
            call.produces = max(call.produces, len(outputs))
            call.output_shape = tuple(outputs[0].shape) if outputs else ()
            call.never_negative = never_negative(operation, args, kwargs)
            is_measured = any(id(tensor) in self.measured for tensor in others)
            call.of_integers = call.of_integers and is_elementary(operation, kind) and not is_measured
            call.of_integers = call.of_integers and not any(is_real(tensor) for tensor in tensors)
            if call.of_integers:
                self.integral.update(map(id, outputs))
            for index, output in enumerate(outputs):
                if id(output) not in self.values or kind is not Kind.PASS:
                    self._name(output, ("call", call.address, index))
                if has_batch_first and keeps_batch_first(operation, args, kwargs, output):
                    self.batch_first.add(id(output))
            if rewrites and outputs and outputs[0] is not written:
                self.aliases.replace(written, outputs[0])
        return result

    def _place(self, frame) -> str:
        """Where a call stands, for errors: the path of its module, and its line."""
        return f"{self.running.innermost or 'the network'} at {addresses.source_of(frame)}"

    def _is_real(self, integral: set[int], tensor: Tensor) -> bool:
        """Whether a tensor is a value of the network that not integers alone, such as a mask's, decide."""
        return id(tensor) in self.values and id(tensor) not in integral

    def _operands(
        self, operation: Operation, args: tuple, kwargs: dict
    ) -> tuple[list[Operand], list[Tensor], list[Tensor]]:
        """(real operands of a call, their tensors, its other tensors)."""
        operands, tensors, others = [], [], []
        for slot, tensor in tensor_slots(args, kwargs):
            if operation.name in TAKING_A_SHAPE and tensor is not first_operand(args, kwargs):
                continue
            if tensor.is_floating_point():
                value = self.values.get(id(tensor))
                constant = None if value is not None else self.constants.get(id(tensor), "")
                shapes = _shape_of(tensor, constant == "", self.batch), () if tensor.is_nested else tuple(tensor.shape)
                operands.append(Operand(slot, value, constant, *shapes))
                tensors.append(tensor)
            else:
                others.append(tensor)
        return operands, tensors, others

    def _note_codes(self, result, sources: frozenset[str], measures: bool) -> None:
        """Remember results that are no real values but depend on the inputs. measures: on real values of them."""
        for leaf in pytree.tree_leaves(result) if sources else ():
            if isinstance(leaf, Tensor) and not leaf.is_floating_point():
                self.codes[id(leaf)] = leaf
                self.sources[id(leaf)] = sources
                if measures:
                    self.measured.add(id(leaf))


def _shape_of(tensor: Tensor, derived: bool, batch: int) -> tuple[int, ...]:
    """The shape of an operand. derived: a constant that the forward made, which broadcasts where it repeats its rows.

    batch: samples of the recorded inputs. Rows that repeat for every sample, one or several, are counted once.
    """
    if tensor.is_nested:  # is refused, and has no shape
        return ()
    shape = tuple(tensor.shape)
    if not derived or tensor.layout is not torch.strided or tensor.is_meta or len(shape) < 2 or shape[0] < 2:
        return shape
    if bool((tensor[:1] == tensor).all()):
        return (1, *shape[1:])
    rows, rest = divmod(shape[0], batch)
    repeats = batch > 1 and not rest and bool((tensor.unflatten(0, (batch, rows)) == tensor[:rows]).all())
    return (rows, *shape[1:]) if repeats else shape


addresses.mark_plumbing(_Recorder.__torch_function__.__code__)
