"""A plan put to work: a torch function mode that quantizes at the planned addresses while the network runs."""

import functools

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qat.errors import AddressError, ConversionError
from qat.inject import addresses
from qat.inject.accumulators import Accumulators
from qat.inject.actions import Action
from qat.inject.addresses import START
from qat.inject.calls import is_counted, makes_real, operand_at, substitute, tensor_slots, with_operand
from qat.inject.choices import with_constants
from qat.inject.constant_reads import READING
from qat.inject.islands import NoIsland, island_call, mark, with_finite_gradients
from qat.inject.masks import mask_of, masked
from qat.inject.opened import OPENED
from qat.inject.operations import (
    COMPUTING,
    Kind,
    bounds_of,
    factor_of,
    first_operand,
    kind_of,
    operation_of,
    out_of_place,
    writes_in_place,
    written_operand,
)
from qat.inject.promoted import with_real_operands
from qat.tokens import fake_quantize_tokens
from qat.tracing import is_exporting, is_traced


class QuantMode(TorchFunctionMode):
    """One forward of a prepared network. Eager code finds its address by its place, compiled code by its order."""

    def __init__(self, handle):
        super().__init__()
        self.handle = handle
        self.actions = handle.plan.actions
        self.transitions = handle.transitions
        self.quantizers = handle.quantizers
        self.previous = START
        self.position = 0
        self.reached: set[int] = set()
        self.replaced: dict[int, Tensor] = {}
        self.alive: list[Tensor] = []
        #: whether Dynamo made this mode, as a part of its graph
        self.compiled = torch.compiler.is_dynamo_compiling()
        training = handle.module.training
        self.exports = is_exporting()
        self.widens = handle.widens
        self.folds = handle.folds
        #: eval mode computes the integers' codes; only there, since it has no gradient, and not where somebody watches,
        #: who wants averages over many inputs in a third of the time
        self.exact = self.folds and not training and not is_traced() and handle.watcher is None
        self.accumulators = Accumulators(handle)
        self.sequence = handle.sequences[training]
        self.reads = handle.reads
        self.watcher = handle.watcher
        if self.reads is not None:
            self.reads.begin()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.replaced:
            args, kwargs = substitute(self.replaced, args, kwargs)
        opened = with_real_operands(function, args, kwargs) or OPENED.get(function)
        if opened is not None:
            with self:
                result = opened(*args, **kwargs)
            if result is not NotImplemented:
                return result
        operation = operation_of(function)
        kind = operation.kind
        if self.reads is not None and operation.name in READING:
            site = addresses.site_of(addresses.caller(1), by_line=True)
            return self.reads.read(site, lambda: function(*args, **kwargs))
        if kind is Kind.IGNORE:
            return function(*args, **kwargs)
        kind = kind_of(operation, args, kwargs)
        if not is_counted(kind, args, kwargs):
            if self.handle.tracks_writes and kind is Kind.PASS and writes_in_place(operation, function, args, kwargs):
                return self._pass_out_of_place(operation, function, args, kwargs)
            result = function(*args, **kwargs)
            if not makes_real(kind, args, kwargs, result):
                return result
        if self.exports and (self.previous, addresses.site_of(addresses.caller(1))) not in self.transitions.steps:
            return self._run_unrecorded(operation, function, args, kwargs)
        address = self._address(operation)
        action = self.actions[address]
        if action.idle:
            return function(*args, **kwargs)
        return self._act(address, action, operation, function, args, kwargs)

    def _address(self, operation) -> int:
        if torch.compiler.is_dynamo_compiling():
            return self._next_in_order(operation)
        if self.compiled:  # the graph ended inside the network, and its pieces run under the mode
            raise AddressError(
                f"torch.compile does not take {type(self.handle.module).__name__}.forward as one graph of the recorded "
                "calls, and its pieces cannot be quantized; torch.compile(..., fullgraph=True) names a line that "
                "breaks the graph, and the network run uncompiled names a path that was not recorded."
            )
        frame = addresses.caller(2)
        site = addresses.site_of(frame)
        way = [] if (self.previous, site) in self.transitions.steps else self._around_masks(site)
        address = way[-1] if way else self.transitions.follow(self.previous, site, operation.name, frame)
        self.previous = address
        self.reached.update(way or (address,))
        return address

    def _around_masks(self, site: int) -> list[int]:
        """The addresses up to that at `site` where the network leaves out masks in between, which masked nothing."""
        return self.transitions.around(self.previous, site, lambda address: self.actions[address].masks)

    def _run_unrecorded(self, operation, function, args: tuple, kwargs: dict):
        """A call that the network makes only while it is exported: masks and constants that it skips otherwise.

        Conversion refuses it if it computes with values, which no quantizer has been planned for.
        """
        mask = None
        if operation.name == "masked_fill":
            mask = mask_of(operation, args, kwargs, lambda operand: operand is first_operand(args, kwargs))
        if mask is None:
            return function(*args, **kwargs)
        self._take_place_of_recorded_mask()
        return masked(first_operand(args, kwargs), mask)

    def _take_place_of_recorded_mask(self) -> None:
        """Go on behind the mask that was recorded here, which the network writes otherwise while it is exported."""
        for (previous, _), address in self.transitions.steps.items():
            if previous == self.previous and self.actions[address].scores is not None:
                self.previous = address
                self.reached.add(address)
                return

    def _next_in_order(self, operation) -> int:
        """The address of the next call of the recorded order, for code that cannot look at its own frames."""
        if (
            self.position >= len(self.sequence)
            or self.handle.operations[self.sequence[self.position]] != operation.name
        ):
            raise AddressError(
                f"the compiled forward calls {operation.name} where the recorded one did not, so it would pass "
                "unquantized; prepare again with example_inputs that take this path."
            )
        address = self.sequence[self.position]
        self.position += 1
        return address

    def _act(self, address: int, action: Action, operation, function, args, kwargs):
        if action.scores is not None:
            return self._mask(action, operation, args, kwargs)
        written = None
        if action.in_place and writes_in_place(operation, function, args, kwargs):
            written = written_operand(args, kwargs)
            function, args, kwargs = out_of_place(operation, function, args, kwargs)
        if action.kind is Kind.JOIN:
            args, kwargs, _ = with_constants(operation, args, kwargs)
        for slot, name in action.weights:
            args, kwargs = with_operand(args, kwargs, slot, self.quantizers[name](operand_at(args, kwargs, slot)))
        if operation.name == "div" and action.region is None and not action.island and not self.exports:
            args, kwargs = self._without_zeros(action, args, kwargs)
        for slot, narrow, wide in action.narrowed:
            operand = self._narrowed(operand_at(args, kwargs, slot), narrow, wide)
            args, kwargs = with_operand(args, kwargs, slot, operand)
        if action.tokens and not self.exports:
            args, kwargs = self._with_tokens(action, args, kwargs)
        if action.island and torch.is_grad_enabled():
            args, kwargs = with_finite_gradients(args, kwargs)
        if self.folds and action.weight_quantizer is not None:
            args, kwargs = self.accumulators.fold_bias(action, args, kwargs)
        waits = self.exact and self.accumulators.waits(action.head)
        bounds = bounds_of(operation, args, kwargs) if waits else None
        factor = factor_of(operation, args, kwargs) if waits else None
        if bounds is not None:  # fused: it becomes bounds of the code
            self.accumulators.bound(action.head, *bounds)
            result = first_operand(args, kwargs)
        elif factor is not None:
            self.accumulators.scale(action.head, factor)
            result = function(*args, **kwargs)
        elif self.exports and action.island:
            result = self._marked(action, operation, function, args, kwargs)
        elif self.folds and action.folded_into is not None:
            result = self.accumulators.folded_batch_norm(address, function, args, kwargs, self.exact)
        else:
            result = self._compute(address, action, operation, function, args, kwargs)
        if self.exact and action.region is not None:
            self.accumulators.follow(address, action, operation.name, function, args, kwargs, result)
        elif self.exact and action.head == address and action.weight_quantizer is None:
            result = self.accumulators.note(address, operation, function, args, kwargs, result)
        result = self._quantize_outputs(action, result)
        if written is not None:
            self._replace(written, result)
        return result

    @staticmethod
    def _marked(action: Action, operation, function, args, kwargs) -> Tensor:
        """The node that stands for a float island in an exported graph."""
        try:
            return mark(island_call(operation, function, args, kwargs))
        except NoIsland as problem:
            raise ConversionError(
                f"{action.layer} is left in float by a rule, and no island holds what it computes while the network is "
                f"exported: {problem}; give it arguments that do not depend on the inputs."
            ) from problem

    def _without_zeros(self, action: Action, args, kwargs):
        """The arguments of a division: a divisor that was rounded to 0 counts as one step, as in the integer kernel."""
        for slot, name in (*action.operands, *action.weights):
            quantizer = self.quantizers[name]
            if slot in (("args", 1), ("kwargs", "other")) and (is_traced() or quantizer.ready):
                divisor = operand_at(args, kwargs, slot)
                step = quantizer.scale_in_force().to(divisor.dtype)
                args, kwargs = with_operand(args, kwargs, slot, torch.where(divisor == 0, step, divisor))
        return args, kwargs

    def _with_tokens(self, action: Action, args, kwargs):
        """The arguments of a layer that reads its input on grids of the moment."""
        if self.handle.state.fake_quantize:
            for slot, dims in action.tokens:
                operand = fake_quantize_tokens(operand_at(args, kwargs, slot), dims)
                args, kwargs = with_operand(args, kwargs, slot, operand)
        return args, kwargs

    def _narrowed(self, operand: Tensor, narrow: str, wide: str) -> Tensor:
        """A value of many bits as its narrow copy."""
        if self.exact and all(self.quantizers[name].ready for name in (narrow, wide)):
            return self.accumulators.narrowed(operand, self.quantizers[narrow], self.quantizers[wide])
        return self.quantizers[narrow](operand)

    def _mask(self, action: Action, operation, args, kwargs):
        """Leave scores out, in the one way that the softmax behind it knows."""
        scores = operand_at(args, kwargs, action.scores)
        is_known = is_traced()  # compiled and exported code cannot look at them
        mask = mask_of(operation, args, kwargs, lambda operand: operand is scores, is_known)
        if mask is None:
            raise AddressError(
                f"{action.layer} left out scores of a softmax when the network was recorded and adds other numbers "
                "now; prepare again with example_inputs that take this path."
            )
        result = masked(scores, mask)
        if writes_in_place(operation, None, args, kwargs):
            self._replace(scores, result)
        return result

    def _compute(self, address: int, action: Action, operation, function, args, kwargs):
        """What the call makes, outside of autocast where it computes with codes."""
        if self.watcher is not None:
            self.watcher(address, function, args, kwargs)
        if self.widens and action.kind in COMPUTING:
            function = functools.partial(_in_float32, function)
        if self.exact and action.weight_quantizer is not None:
            result = self.accumulators.sum_products(address, operation, function, args, kwargs)
            if result is not None:
                return result
        return function(*args, **kwargs)

    def _quantize_outputs(self, action: Action, result):
        if self.widens:
            result = widened(result)
        if isinstance(result, Tensor):
            name = action.outputs[0] if action.outputs else None
            if name and self.accumulators.waits(action.head):
                return self.accumulators.quantize(action.head, name, result)
            return self.quantizers[name](result) if name else result
        if not any(action.outputs):
            return result
        names = iter(action.outputs)
        entries = []
        for entry in result:
            name = next(names) if isinstance(entry, Tensor) and entry.is_floating_point() else None
            entries.append(self.quantizers[name](entry) if name else entry)
        return type(result)(entries)

    def _pass_out_of_place(self, operation, function, args, kwargs):
        rewritten = out_of_place(operation, function, args, kwargs)
        if rewritten is None:
            return function(*args, **kwargs)
        function, args, kwargs = rewritten
        result = function(*args, **kwargs)
        self._replace(first_operand(args, kwargs), result)
        return result

    def _replace(self, written: Tensor, result: Tensor) -> None:
        """Later uses of a tensor that was written in place see what was written."""
        if self.handle.tracks_writes and result is not written:
            self.replaced[id(written)] = result
            self.alive.append(written)

    def current(self, result):
        """What the forward returned, with tensors that were written in place replaced by what was written."""
        if not self.replaced:
            return result
        return pytree.tree_map(lambda leaf: substitute(self.replaced, (leaf,), {})[0][0], result)

    def check_complete(self) -> None:
        """Raise `AddressError` unless every planned call of this mode ran."""
        if torch.compiler.is_dynamo_compiling():
            missing = len(self.sequence) - self.position
            first = self.sequence[-missing] if missing else None
        else:
            unreached = self.handle.expected[self.handle.module.training] - self.reached
            missing, first = len(unreached), min(unreached, default=None)
        if missing:
            layer = self.actions[first].layer
            raise AddressError(
                f"the forward ended without reaching {missing} of the recorded calls, the first of them {layer}; "
                "prepare again with example_inputs that take this path, or keep the path fixed."
            )


def _in_float32(function, *args, **kwargs):
    """The call without autocast: bfloat16 holds 8-bit codes times a scale, and their sums, to 8 bits only."""
    device = next(tensor.device.type for _, tensor in tensor_slots(args, kwargs))
    with torch.autocast(device, enabled=False):
        return function(*widened(args), **widened(kwargs))


def widened(values):
    """Tensors of fewer bits as float32."""
    return pytree.tree_map(lambda leaf: leaf.float() if _is_narrow(leaf) else leaf, values)


def _is_narrow(leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)


addresses.mark_plumbing(QuantMode.__torch_function__.__code__)
