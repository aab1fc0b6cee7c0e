"""What the integers of a computation are while the network runs: bias and batch norm on the accumulator's grid.

A kernel sums products of codes in units of `input scale * weight scale`; see `qat.folding` for what becomes of a bias
and a batch norm behind it, and `qat.inject.exact` for how the sum becomes a code.
"""

import dataclasses
import inspect

import torch
import torch.nn.functional as F
from torch import Tensor

from qat import folding, functional
from qat.folding import BatchNorm
from qat.inject import exact, exact_operations, islands, written_norms
from qat.inject.actions import Action
from qat.inject.calls import Slot, has_slot, operand_at, with_operand
from qat.inject.exact import Accumulator
from qat.inject.exact_kernels import Computed, codes_of
from qat.inject.nonlinear import requantize_between
from qat.inject.operations import Operation
from qat.inject.tables import Mapped, Regions
from qat.inject.weighted import WeightedForm
from qat.integer.fixed_point import NARROW_BITS
from qat.integer.operations import Conv, Linear, Requantize
from qat.integer.semantics import Semantics
from qat.integer.values import Grid
from qat.quantizers import FakeQuantize
from qat.tracing import is_traced


class Accumulators:
    """The accumulators of one forward, by the address of the computation they belong to."""

    def __init__(self, handle):
        self.actions = handle.plan.actions
        self.quantizers = handle.quantizers
        self.ends = handle.ends
        self.semantics = handle.semantics
        self.biases: dict[int, Tensor | None] = {}  # address of a batch norm -> bias of the layer folded with it
        self.scales: dict[int, tuple[Tensor, Tensor] | None] = {}  # and the scales of that layer's input and integers
        self.sums: dict[int, Tensor] = {}  # address of a batch norm -> sums of products of that layer, float64
        # address of a computation -> what waits for the quantizer behind it
        self.waiting: dict[int, Accumulator | Computed | Mapped] = {}
        self.regions = Regions(self.quantizers)
        self.norms: dict[int, written_norms.Statistic] = {}
        self.dtype = torch.float32  # of what the network computes with

    def fold_bias(self, action: Action, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Put the layer's bias on the accumulator's grid, or hand it to the batch norm folded into the layer."""
        scales = self._scales(action)
        bias = None if action.bias is None else operand_at(args, kwargs, action.bias)
        if action.batch_norm is not None:
            self.scales[action.batch_norm] = scales
            self.biases[action.batch_norm] = bias
            bias = _no_bias(action.form, bias)
        elif bias is not None and scales is not None:
            unit = scales[0] * _per_channel(scales[1], bias.numel())
            bias = folding.fake_quantize_bias(bias.float(), unit).to(bias.dtype)
        return (args, kwargs) if action.bias is None else with_operand(args, kwargs, action.bias, bias)

    def sum_products(self, address: int, operation: Operation, function, args: tuple, kwargs: dict) -> Tensor | None:
        """The real result of a layer with weights, from sums of products of codes; notes the sums.

        Codes of 8 bits, unlike the reals they stand for, pass unrounded through the multipliers of any device, be they
        bfloat16 or TF32, and float32 holds their sums up to 2^24; wider codes are added in float64. None where the sums
        have no unit or wait for nothing.
        """
        action = self.actions[address]
        layer = action.form
        scales = self._scales(action)
        if scales is None or action.head != address or not self._all_ready(action):
            return None
        source = next(slot for slot in layer.inputs if has_slot(args, kwargs, slot))
        weight = next(slot for slot, name in action.weights if name == action.weight_quantizer)
        x, kernel = operand_at(args, kwargs, source), operand_at(args, kwargs, weight)
        bias = None if action.bias is None else operand_at(args, kwargs, action.bias)
        wide = self.quantizers[action.input_quantizer].spec.bits > NARROW_BITS  # their sums float32 does not hold
        widened = torch.Tensor.double if wide else _as_it_is
        args, kwargs = with_operand(args, kwargs, source, widened(_steps(x, scales[0])))
        kernel_scale = functional.along_axis(scales[1], kernel.dim(), layer.axis)
        args, kwargs = with_operand(args, kwargs, weight, widened(_steps(kernel, kernel_scale)))
        if bias is not None:
            none = _no_bias(layer, bias)
            args, kwargs = with_operand(args, kwargs, action.bias, none if none is None else widened(none))
        sums = function(*args, **kwargs)
        self.dtype = x.dtype
        along = _along(sums, layer.channels)
        scales = scales[0], _per_channel(scales[1], sums.shape[layer.channels])
        unit = scales[0] * scales[1]
        whole = torch.round(sums.detach()).double()
        real = (sums * unit.reshape(along if unit.dim() else ())).to(x.dtype)
        if bias is not None:
            whole = whole + folding.bias_codes(bias.detach().float(), unit).double().view(along)
            real = real + bias.view(along)
        if action.batch_norm is None:
            self.waiting[address] = exact.weighted(*scales, along, whole, self._kind(action))
        else:
            self.sums[action.batch_norm] = whole
        return real

    def folded_batch_norm(self, address: int, function, args: tuple, kwargs: dict, is_exact: bool) -> Tensor:
        """The batch norm at `address` as the integers compute it. is_exact: note the accumulator, too."""
        x, batch_norm = batch_norm_of(function, args, kwargs)
        multiplier, shift = batch_norm.affine(self.biases[address])
        scales = self.scales[address]
        if scales is not None:
            folded, dead = folding.fold_scale(scales[0], _per_channel(scales[1], shift.numel()), multiplier, shift)
            head = self.actions[address].head
            unit = scales[0] * folded
            if is_exact and address in self.sums:
                bias = folding.bias_codes(shift, unit)
                whole = _folded_sums(self.sums.pop(address), multiplier, dead, bias, _along(x, 1))
                kind = self._kind(self.actions[head])
                self.waiting[head] = exact.weighted(scales[0], folded, _along(x, 1), whole, kind)
            shift = folding.fake_quantize_bias(shift, unit)
            multiplier = torch.where(dead, torch.zeros_like(multiplier), multiplier)
        shape = _along(x, 1)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, multiplier.view(shape).to(x.dtype))

    def note(self, address: int, operation: Operation, function, args: tuple, kwargs: dict, result):
        """Note in which units the result of an operation without weights is a whole number, where it is one.

        Returns the result.
        """
        action = self.actions[address]
        if not isinstance(result, Tensor) or not self._all_ready(action):
            return result
        self.dtype = result.dtype
        if action.island:
            grids = {slot: exact.grid_of(self.quantizers[name]) for slot, name in action.operands}
            self.waiting[address] = islands.computed(islands.island_call(operation, function, args, kwargs), grids)
            return result
        if operation.name == "batch_norm":
            x, batch_norm = batch_norm_of(function, args, kwargs)
            if batch_norm.mean is not None:
                scale = self.quantizers[action.operands[0][1]].scale_in_force()
                kind = exact_operations.kind_between(self.semantics, Conv, self._grids(action))
                self.waiting[address] = exact.normalized(scale, batch_norm, _along(x, 1), kind)
            return result
        if operation.name == "embedding":
            ((_, name),) = action.weights
            unit = self.quantizers[name].scale_in_force() / self.quantizers[name].kernel_weight().step
            kind = exact_operations.kind_between(self.semantics, Requantize, {})
            self.waiting[address] = exact.product(float(unit), 1.0, self.semantics.rounds_first, kind)
            return result
        accumulated = exact_operations.accumulate(
            operation, function, args, kwargs, result, self._grids(action), action.shape, self._semantics(action)
        )
        if accumulated is None:
            return result
        result, self.waiting[address] = accumulated
        return result

    def narrowed(self, real: Tensor, narrow: FakeQuantize, wide: FakeQuantize) -> Tensor:
        """A value on the grid of `wide` on that of `narrow`, code for code as the integers move it."""
        source = exact.grid_of(wide)
        copy = Computed(requantize_between(source), (codes_of(real, source),), (source,))
        exactly = copy.quantize(real, exact.grid_of(narrow))
        if narrow.measure:
            narrow.measure_rounding(real.detach(), exactly.detach())
        if narrow.trail is not None:
            narrow.trail.append(exactly.detach())
        return exactly.to(real.dtype)

    def follow(
        self, address: int, action: Action, name: str, function, args: tuple, kwargs: dict, result: Tensor
    ) -> None:
        """Follow one call of a region of pointwise functions; note its table where a quantizer ends it."""
        if action.region.role:
            self._follow_norm(address, action, args, kwargs, result)
            return
        mapped = self.regions.follow(address, action, name, function, args, kwargs)
        if mapped is not None and action.head == address and self._all_ready(action):
            self.dtype = result.dtype
            self.waiting[address] = mapped

    def _follow_norm(self, address: int, action: Action, args: tuple, kwargs: dict, result: Tensor) -> None:
        root = self.quantizers[action.region.root]
        norm = (
            written_norms.follow(action.region, self.norms, exact.grid_of(root), args, kwargs) if root.ready else None
        )
        if norm is None:
            return
        self.norms[address] = norm
        if action.head == address and self._all_ready(action):
            self.dtype = result.dtype
            self.waiting[address] = norm.computed()

    def waits(self, head: int | None) -> bool:
        """Whether the result of the computation at `head` still waits for its quantizer."""
        return head in self.waiting

    def bound(self, head: int, low: float, high: float) -> None:
        """Fuse a clamp to low..high into the computation at `head`."""
        self.waiting[head].bound(low, high)

    def scale(self, head: int, factor: float) -> None:
        """Multiply the computation at `head` by a number, inside its kernel."""
        self.waiting[head] = self.waiting[head].times(factor)

    def quantize(self, head: int, name: str, result: Tensor) -> Tensor:
        """`result`, of the computation at `head`, on the grid of the quantizer `name`, code for code."""
        accumulator, quantizer = self.waiting.pop(head), self.quantizers[name]
        exactly = accumulator.quantize(result, exact.grid_of(quantizer))
        if quantizer.measure:
            if isinstance(accumulator, Accumulator | Computed):
                result = result.clamp(accumulator.low, accumulator.high)
            quantizer.measure_rounding(result.detach(), exactly.detach())
        if quantizer.trail is not None:
            quantizer.trail.append(exactly.detach())
        return exactly.to(self.dtype)

    def _scales(self, action: Action) -> tuple[Tensor, Tensor] | None:
        """(scale of the input, scale of the kernel's integers).

        None while a quantizer has met no data, and for weights in groups, whose sums have no unit in common.
        """
        source, weight = self.quantizers[action.input_quantizer], self.quantizers[action.weight_quantizer]
        if weight.spec.group_size is not None:
            return None
        if not is_traced() and not (source.ready and weight.ready):
            return None
        return source.scale_in_force(), weight.scale_in_force() / weight.kernel_weight().step

    def _kind(self, action: Action) -> exact.Kind:
        """How a layer with weights is rescaled, by the grid of its result."""
        source = exact.grid_of(self.quantizers[action.input_quantizer])
        layer = Linear if action.form.channels == -1 else Conv
        return lambda grid: self.semantics.kind(layer, source, grid)

    def _semantics(self, action: Action) -> Semantics:
        """Of a computation: products with a constant are rounded as those of layers."""
        return dataclasses.replace(self.semantics, rounds_once=False) if action.weights else self.semantics

    def _all_ready(self, action: Action) -> bool:
        names = [name for _, name in (*action.operands, *action.weights)]
        names += [name for name in self.actions[self.ends[action.head]].outputs if name]
        return all(self.quantizers[name].ready for name in names)

    def _grids(self, action: Action) -> dict[Slot | None, Grid]:
        """Grid of each operand by slot, and of the quantizer behind the computation under None."""
        grids = {slot: exact.grid_of(self.quantizers[name]) for slot, name in (*action.operands, *action.weights)}
        (output,) = self.actions[self.ends[action.head]].outputs
        return {**grids, None: exact.grid_of(self.quantizers[output])}


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _no_bias(form: WeightedForm, bias: Tensor | None) -> Tensor | None:
    """What stands for no bias."""
    return bias.new_zeros(()) if bias is not None and form.needs_bias else None


def _steps(real: Tensor, scale: Tensor) -> Tensor:
    """The whole numbers of `scale` that `real` is, with the gradient of the division; float32 or wider."""
    steps = (real if real.dtype == torch.float64 else real.float()) / scale
    return functional.round_ste(steps) if steps.requires_grad else steps.round_()


def _folded_sums(sums: Tensor, multiplier: Tensor, dead: Tensor, bias: Tensor, along: tuple[int, ...]) -> Tensor:
    """`sums` with the sign of the batch norm's multiplier, none of a dead channel, and its shift in their units."""
    sign = torch.where(multiplier < 0, -1.0, 1.0).masked_fill(dead, 0.0).double()
    return sums * sign.view(along) + bias.double().view(along)


def _per_channel(scale: Tensor, channels: int) -> Tensor:
    """One scale for all channels or one for each; groups of a transposed convolution share those of their channels."""
    return scale if scale.numel() in (1, channels) else scale.repeat(channels // scale.numel())


def _along(tensor: Tensor, dim: int) -> tuple[int, ...]:
    """The shape in which a vector broadcasts along dimension `dim` of `tensor`."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return tuple(shape)


_BATCH_NORM_PARAMETERS = tuple(inspect.signature(F.batch_norm).parameters)
#: Of torch.batch_norm, which is built in and has no signature to read.
_NATIVE_PARAMETERS = tuple("input weight bias running_mean running_var training momentum eps cudnn_enabled".split())


def batch_norm_of(function, args: tuple, kwargs: dict) -> tuple[Tensor, BatchNorm]:
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
