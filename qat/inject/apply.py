"""A plan put to work: a torch function mode that quantizes at the planned addresses while the network runs."""

import contextlib
import inspect

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qat import folding
from qat.errors import AddressError
from qat.folding import BatchNorm
from qat.inject import addresses, exact, exact_operations
from qat.inject.addresses import START
from qat.inject.calls import Slot, is_counted, substitute, tensor_slots
from qat.inject.exact import Accumulator
from qat.inject.operations import (
    COMPUTING,
    Kind,
    bounds_of,
    first_operand,
    kind_of,
    operation_of,
    out_of_place,
    writes_in_place,
)
from qat.inject.plan import Action


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
        self.biases: dict[int, Tensor | None] = {}  # address of a batch norm -> bias of the layer folded with it
        self.scales: dict[int, tuple[Tensor, Tensor] | None] = {}  # and the scales of that layer's input and integers
        training = handle.module.training
        self.fold = handle.folds
        self.widens = handle.widens
        self.dtype = torch.float32  # of what the network computes with
        #: eval mode computes the integers' codes; only there, since it has no gradient
        self.exact = self.fold and not training and not torch.compiler.is_compiling()
        self.accumulators: dict[int, Accumulator] = {}  # address of a computation -> what waits for its quantizer
        self.sequence = handle.sequences[training]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.replaced:
            args, kwargs = substitute(self.replaced, args, kwargs)
        operation = operation_of(function)
        kind = operation.kind
        if kind is Kind.IGNORE:
            return function(*args, **kwargs)
        kind = kind_of(operation, args, kwargs)
        if not is_counted(kind, args, kwargs):
            if self.handle.tracks_writes and kind is Kind.PASS and writes_in_place(operation, function, args, kwargs):
                return self._pass_out_of_place(operation, function, args, kwargs)
            return function(*args, **kwargs)
        address = self._address(operation)
        action = self.actions[address]
        if action.idle:
            return function(*args, **kwargs)
        return self._act(address, action, operation, function, args, kwargs)

    def _address(self, operation) -> int:
        if torch.compiler.is_dynamo_compiling():
            return self._next_in_order(operation)
        frame = addresses.caller(2)
        address = self.transitions.follow(self.previous, addresses.site_of(frame), operation.name, frame)
        self.previous = address
        self.reached.add(address)
        return address

    def _next_in_order(self, operation) -> int:
        """The address of the next call of the recorded order, for code that cannot look at its own frames."""
        if (
            self.position >= len(self.sequence)
            or self.handle.operations[self.sequence[self.position]] != operation.name
        ):
            raise AddressError(
                f"the compiled forward calls {operation.name} where the recorded one did not, so it would pass "
                "unquantized; "
                "prepare again with example_inputs that take this path."
            )
        address = self.sequence[self.position]
        self.position += 1
        return address

    def _act(self, address: int, action: Action, operation, function, args, kwargs):
        written = None
        if action.in_place and writes_in_place(operation, function, args, kwargs):
            written = first_operand(args, kwargs)
            function, args, kwargs = out_of_place(operation, function, args, kwargs)
        for slot, name in action.weights:
            args, kwargs = _with(args, kwargs, slot, self.quantizers[name](_at(args, kwargs, slot)))
        if self.fold and action.weight_quantizer is not None:
            args, kwargs = self._fold_bias(action, args, kwargs)
        bounds = bounds_of(operation, args, kwargs) if self.exact and action.head in self.accumulators else None
        if bounds is not None:  # fused: it becomes bounds of the code
            self.accumulators[action.head].bound(*bounds)
            result = first_operand(args, kwargs)
        elif self.fold and action.folded_into is not None:
            result = self._folded_batch_norm(address, function, args, kwargs)
        elif self.widens and action.kind in COMPUTING:
            result = _in_float32(function, args, kwargs)
        else:
            result = function(*args, **kwargs)
        if self.exact and action.head == address:
            result = self._accumulate(address, action, operation, function, args, kwargs, result)
        result = self._quantize_outputs(action, result)
        if written is not None:
            self._replace(written, result)
        return result

    def _quantize_outputs(self, action: Action, result):
        if self.widens:
            result = widened(result)
        if isinstance(result, Tensor):
            name = action.outputs[0] if action.outputs else None
            if name and action.head in self.accumulators:
                return self._quantize_exactly(self.accumulators.pop(action.head), name, result)
            return self.quantizers[name](result) if name else result
        if not any(action.outputs):
            return result
        names = iter(action.outputs)
        entries = []
        for entry in result:
            name = next(names) if isinstance(entry, Tensor) and entry.is_floating_point() else None
            entries.append(self.quantizers[name](entry) if name else entry)
        return type(result)(entries)

    def _quantize_exactly(self, accumulator: Accumulator, name: str, result: Tensor) -> Tensor:
        return accumulator.quantize(result, exact.grid_of(self.quantizers[name])).to(self.dtype)

    def _accumulate(self, address: int, action: Action, operation, function, args, kwargs, result):
        """Note in which units the result is a whole number, where the operation has such; returns the result."""
        if not isinstance(result, Tensor) or not self._all_ready(action):
            return result
        self.dtype = result.dtype
        if action.weight_quantizer is not None:
            if action.batch_norm is None:  # else the batch norm notes it, with its multiplier folded in
                channels = -1 if operation.name == "linear" else 1
                self.accumulators[address] = exact.weighted(*self._accumulator_scales(action), _along(result, channels))
            return result
        if operation.name == "batch_norm":
            x, batch_norm = _batch_norm_of(function, args, kwargs)
            if batch_norm.mean is None:
                return result
            scale = self.quantizers[action.operands[0][1]].scale_in_force()
            self.accumulators[address] = exact.normalized(scale, batch_norm, _along(x, 1))
            return result
        accumulated = exact_operations.accumulate(operation, args, kwargs, result, self._grids(action))
        if accumulated is None:
            return result
        result, self.accumulators[address] = accumulated
        return result

    def _all_ready(self, action: Action) -> bool:
        names = [name for _, name in (*action.operands, *action.weights)]
        names += [name for name in self.actions[self.handle.ends[action.head]].outputs if name]
        return all(self.quantizers[name].ready for name in names)

    def _grids(self, action: Action) -> dict:
        """Grid of each operand by slot, and of the quantizer behind the computation under None."""
        grids = {slot: exact.grid_of(self.quantizers[name]) for slot, name in (*action.operands, *action.weights)}
        (output,) = self.actions[self.handle.ends[action.head]].outputs
        return {**grids, None: exact.grid_of(self.quantizers[output])}

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

    def _fold_bias(self, action: Action, args, kwargs):
        """Put the layer's bias on the accumulator's grid, or hand it to the batch norm folded into the layer."""
        scales = self._accumulator_scales(action)
        bias = None if action.bias is None else _at(args, kwargs, action.bias)
        if action.batch_norm is not None:
            self.scales[action.batch_norm] = scales
            self.biases[action.batch_norm] = bias
            bias = None
        elif bias is not None and scales is not None:
            bias = folding.fake_quantize_bias(bias.float(), scales[0] * scales[1]).to(bias.dtype)
        return (args, kwargs) if action.bias is None else _with(args, kwargs, action.bias, bias)

    def _accumulator_scales(self, action: Action) -> tuple[Tensor, Tensor] | None:
        """(scale of the input, scale of the kernel's integers), None while a quantizer has met no data."""
        source, weight = self.quantizers[action.input_quantizer], self.quantizers[action.weight_quantizer]
        if not torch.compiler.is_compiling() and not (source.ready and weight.ready):
            return None
        return source.scale_in_force(), weight.scale_in_force() / weight.kernel_weight().step

    def _folded_batch_norm(self, address: int, function, args, kwargs):
        x, batch_norm = _batch_norm_of(function, args, kwargs)
        multiplier, shift = batch_norm.affine(self.biases[address])
        scales = self.scales[address]
        if scales is not None:
            folded, dead = folding.fold_scale(*scales, multiplier, shift)
            head = self.actions[address].head
            if self.exact and head is not None and self._all_ready(self.actions[head]):
                self.accumulators[head] = exact.weighted(scales[0], folded, _along(x, 1))
            shift = folding.fake_quantize_bias(shift, scales[0] * folded)
            multiplier = torch.where(dead, torch.zeros_like(multiplier), multiplier)
        shape = _along(x, 1)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, multiplier.view(shape).to(x.dtype))

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
                "prepare again "
                "with example_inputs that take this path, or keep the path fixed."
            )


def _in_float32(function, args: tuple, kwargs: dict):
    """The call without autocast: bfloat16 holds 8-bit codes times a scale, and their sums, to 8 bits only."""
    device = next(tensor.device.type for _, tensor in tensor_slots(args, kwargs))
    with torch.autocast(device, enabled=False):
        return function(*widened(args), **widened(kwargs))


def widened(values):
    """Tensors of fewer bits as float32."""
    return pytree.tree_map(lambda leaf: leaf.float() if _is_narrow(leaf) else leaf, values)


def _is_narrow(leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)


def _along(tensor: Tensor, dim: int) -> tuple[int, ...]:
    """The shape in which a vector broadcasts along dimension `dim` of `tensor`."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return tuple(shape)


def _at(args: tuple, kwargs: dict, slot: Slot):
    value = args[slot[1]] if slot[0] == "args" else kwargs[slot[1]]
    return value[slot[2]] if len(slot) == 3 else value


def _with(args: tuple, kwargs: dict, slot: Slot, value) -> tuple[tuple, dict]:
    """The arguments with `value` at `slot`."""
    if len(slot) == 3:
        outer = args[slot[1]] if slot[0] == "args" else kwargs[slot[1]]
        value = type(outer)(value if index == slot[2] else entry for index, entry in enumerate(outer))
    if slot[0] == "kwargs":
        return args, {**kwargs, slot[1]: value}
    return (*args[: slot[1]], value, *args[slot[1] + 1 :]), kwargs


_BATCH_NORM_PARAMETERS = tuple(inspect.signature(F.batch_norm).parameters)
_NATIVE_PARAMETERS = (
    "input",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "training",
    "momentum",
    "eps",
    "cudnn_enabled",
)


def _batch_norm_of(function, args: tuple, kwargs: dict) -> tuple[Tensor, BatchNorm]:
    """(input, constants) of a call to F.batch_norm or torch.batch_norm."""
    names = _BATCH_NORM_PARAMETERS if function is F.batch_norm else _NATIVE_PARAMETERS
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return given["input"], BatchNorm(
        mean=given["running_mean"],
        variance=given["running_var"],
        weight=given.get("weight"),
        bias=given.get("bias"),
        eps=given.get("eps", 1e-5),
    )


@contextlib.contextmanager
def recomputing(mode: QuantMode):
    """Let activation checkpointing recompute its regions under the same quantization, while inside.

    Non-reentrant checkpointing asks `context_fn` for a context to recompute in; ours re-enters the mode at the address
    where the region began.
    """
    defaults = inspect.unwrap(torch.utils.checkpoint.checkpoint).__kwdefaults__
    original = defaults["context_fn"]

    def contexts():
        return contextlib.nullcontext(), _Recomputation(mode.handle, mode.previous, mode.fold, mode.sequence)

    defaults["context_fn"] = contexts
    try:
        yield
    finally:
        defaults["context_fn"] = original


class _Recomputation(QuantMode):
    """The mode of a region that the backward pass computes again, beginning behind the address `previous`."""

    def __init__(self, handle, previous: int, fold: bool, sequence: tuple[int, ...]):
        super().__init__(handle)
        self.region_start = previous
        self.fold = fold
        self.sequence = sequence

    def __enter__(self):
        self.previous = self.region_start
        return super().__enter__()
