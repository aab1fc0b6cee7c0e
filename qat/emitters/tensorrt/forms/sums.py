"""Sums of products and of windows: whole numbers in float32, one Mul by the multipliers, one QuantizeLinear."""

import hashlib
import math

import numpy
import torch
from onnx import TensorProto
from torch import Tensor

from qat.emitters.onnxruntime.graph import Initializer, array_of, pads_of
from qat.emitters.tensorrt.writer import Writer
from qat.integer.operations import AveragePool, Conv, Linear, MatMul, Mean, Operation, Sum
from qat.integer.packing import pack
from qat.integer.values import INT8_MAX, INT8_MIN, Weight

#: Codes of a 4-bit tensor.
INT4_MIN, INT4_MAX, INT4_BITS = -8, 7, 4
#: Sizes of blocks of INT4 weights along K, largest first; TensorRT has kernels for these.
BLOCK_SIZES = (128, 64, 32, 16)


def convolution(writer: Writer, operation: Conv) -> None:
    """Conv of int8 weights with one scale per output channel on axis 0."""
    name, ones = operation.name, (1,) * len(operation.kernel_size)
    sums = writer.graph.node(
        "Conv",
        [writer.units(operation.inputs[0]), _weight(writer, name, operation.weight.kernel), _bias(writer, operation)],
        f"{name}/sums",
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(operation.padding),
        dilations=operation.dilation,
        group=operation.groups,
    )
    _rescale(writer, operation, sums, (1, -1, *ones), may_merge_bias=True)


def linear(writer: Writer, operation: Linear) -> None:
    """MatMul, of INT4 weights in blocks where they have 4 bits or fewer."""
    name, kernel = operation.name, operation.weight.kernel
    weight = _blocked_weight(writer, name, operation.weight) or _weight(writer, name, kernel)
    turned = writer.graph.node("Transpose", [weight], f"{name}/weight/transposed", perm=(1, 0))
    product = writer.graph.node("MatMul", [writer.units(operation.inputs[0]), turned], f"{name}/product")
    sums = writer.graph.node("Add", [product, _bias(writer, operation)], f"{name}/sums")
    _rescale(writer, operation, sums, (-1,))


def matmul(writer: Writer, operation: MatMul) -> None:
    """MatMul of two int8 values, or of a value and a constant, which is the sum of at most two int8 parts."""
    name, (first, second) = operation.name, (_parts(writer, source) for source in operation.inputs)
    pairs = [(left, right) for left in first for right in second]
    products = [writer.graph.node("MatMul", pair, f"{name}/sums/{place}") for place, pair in enumerate(pairs)]
    sums = products[0] if len(products) == 1 else writer.graph.node("Add", products, f"{name}/sums")
    _rescale(writer, operation, sums, ())


def _parts(writer: Writer, name: str) -> list[str]:
    """Units of an operand, or int8 tensors that add up to them.

    A constant matrix, as of an interpolation, may have codes of 0..255 around any zero point: 9 bits, of which the last
    is a part of its own where it is not 0 everywhere.
    """
    if not writer.is_constant(name):
        return [writer.units(name)]
    constant = writer.program.value(name)
    whole = array_of(constant.codes).astype(numpy.int64)[None] - constant.grid.zero_point
    high, low = whole >> 1, whole & 1
    if INT8_MIN <= whole.min() and whole.max() <= INT8_MAX:
        parts = [(whole, 1.0)]
    else:
        parts = [(high, 2.0), (low, 1.0)] if low.any() else [(high, 2.0)]
    return [_constant_part(writer, name, place, *part) for place, part in enumerate(parts)]


def _constant_part(writer: Writer, name: str, place: int, codes: numpy.ndarray, scale: float) -> str:
    def make() -> str:
        stored = writer.graph.constant(f"part/{name}/{place}/codes", codes, numpy.int8)
        return writer.graph.node("DequantizeLinear", [stored, *writer.scale(scale)], f"part/{name}/{place}")

    return writer.once(f"part/{name}/{place}", make)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """A Conv of each channel with ones: of an AveragePool TensorRT-RTX (1.7) makes a float32 kernel."""
    channels = writer.shape(operation.inputs[0])[0]
    ones = torch.ones((channels, 1, *operation.kernel_size), dtype=torch.int8)
    sums = writer.graph.node(
        "Conv",
        [writer.units(operation.inputs[0]), _weight(writer, operation.name, ones)],
        f"{operation.name}/sums",
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(operation.padding),
        group=channels,
    )
    _rescale(writer, operation, sums, ())


def reduce(writer: Writer, operation: Mean | Sum) -> None:
    """ReduceSum."""
    axes = writer.graph.constant(f"{operation.name}/axes", operation.dims, numpy.int64)
    sources = [writer.units(operation.inputs[0]), axes]
    sums = writer.graph.node("ReduceSum", sources, f"{operation.name}/sums", keepdims=int(operation.keepdim))
    _rescale(writer, operation, sums, ())


def _rescale(
    writer: Writer, operation: Operation, sums: str, shape: tuple[int, ...], may_merge_bias: bool = False
) -> None:
    """The output of sums. shape: in which multipliers broadcast to them.

    A Relu comes before the multipliers, which are positive. may_merge_bias: TensorRT-RTX (1.7) would make
    `acc * M + bias * M` of `(acc + bias) * M` behind a convolution, which rounds otherwise. With a Relu between, or a
    Round, which leaves whole numbers as they are, it multiplies the sum.
    """
    low, name = operation.clamp_min, operation.name
    if low == 0:
        sums, low = writer.graph.node("Relu", [sums], f"{name}/relu"), INT8_MIN
    elif may_merge_bias and bool(operation.bias.any()):
        sums = writer.graph.node("Round", [sums], f"{name}/whole")
    factors = array_of(operation.multiplier.to_float()).reshape(shape)
    multiplier = writer.graph.constant(f"{name}/multiplier", factors, numpy.float32)
    scaled = writer.graph.node("Mul", [sums, multiplier], f"{name}/scaled")
    output = operation.output
    writer.quantized(writer.limited(scaled, output, low, operation.clamp_max), output)


def _bias(writer: Writer, operation: Conv | Linear) -> str:
    """The bias in units of the sums, as float32."""
    return writer.graph.constant(f"{operation.name}/bias", array_of(operation.bias), numpy.float32)


def _weight(writer: Writer, name: str, kernel: Tensor) -> str:
    """int8 weights (O, ...), dequantized per channel on axis 0 to their units; equal ones are stored once."""

    def make() -> str:
        channels = len(kernel)
        codes = writer.graph.constant(f"{name}/weight/codes", array_of(kernel), numpy.int8)
        scale = writer.constant(f"scale/{channels} channels", numpy.ones(channels), numpy.float32)
        zero_point = writer.constant(f"zero_point/{channels} channels", numpy.zeros(channels), numpy.int8)
        return writer.graph.node("DequantizeLinear", [codes, scale, zero_point], f"{name}/weight", axis=0)

    return writer.once(f"int8 {_digest(kernel)}", make)


def _blocked_weight(writer: Writer, name: str, weight: Weight) -> str | None:
    """Weights (O, K) as INT4 in blocks along K; None where they have more bits, or no size of block divides K.

    What they are dequantized to is the kernel's int8 numbers, whole ones, which are quantized as such: of INT4 weights
    alone TensorRT multiplies in float32, and of INT4 weights in several blocks beside int8 values not at all.
    """
    step = math.gcd(weight.grid.step, weight.grid.offset)
    codes = torch.div(weight.kernel, step, rounding_mode="floor")
    outputs, inputs = codes.shape
    size = next((size for size in BLOCK_SIZES if inputs % size == 0), None)
    if size is None or weight.grid.bits > INT4_BITS or codes.min() < INT4_MIN or codes.max() > INT4_MAX:
        return None

    def make() -> str:
        stored = f"{name}/weight/codes"
        writer.graph.claim(stored)
        packed = pack(codes, INT4_BITS).numpy()
        writer.graph.initializers[stored] = Initializer(stored, TensorProto.INT4, (outputs, inputs), packed)
        scales = numpy.full((outputs, inputs // size), step)
        scale = writer.graph.constant(f"{name}/weight/scale", scales, numpy.float32)
        wide = writer.graph.node("DequantizeLinear", [stored, scale], f"{name}/weight/wide", axis=1, block_size=size)
        narrow = writer.graph.node("QuantizeLinear", [wide, *writer.scale(1.0)], f"{name}/weight/int8")
        return writer.graph.node("DequantizeLinear", [narrow, *writer.scale(1.0)], f"{name}/weight")

    return writer.once(f"int4 {step} {_digest(codes)}", make)


def _digest(codes: Tensor) -> str:
    return f"{tuple(codes.shape)} {hashlib.sha256(array_of(codes).tobytes()).hexdigest()}"
