"""Means and sums over everything but the channels: one node, which also reads channels that stand last."""

import math

import numpy

from qat.emitters.onnxruntime.writer import MICROSOFT, Writer, tensor_of
from qat.integer.lengths import Length
from qat.integer.operations import AveragePool, Mean, Sum

#: Factors that the kernel takes (MLAS qlgavgpool.cpp), from the first up to the second, and codes that it adds up.
FACTORS = 2.0**-32, 2.0**8
MAX_COUNT = 2**24


def global_mean(writer: Writer, operation: AveragePool | Mean | Sum) -> bool:
    """QLinearGlobalAveragePool, if it can compute the operation. Returns whether it can; else nothing is written.

    The kernel adds up codes and multiplies with fl32(input scale / fl32(output scale * count)); it is given one
    over the count as the scale of the output, and as that of the input what then makes the operation's own factor.
    """
    source, target = operation.inputs[0], tensor_of(operation.output)
    shape = writer.shape(source)
    every = range(1, len(shape) + 1)
    dims = tuple(every[1:]) if isinstance(operation, AveragePool) else tuple(sorted(operation.dims))
    count = math.prod(shape[dim - 1] for dim in dims)
    factor = operation.multiplier.to_float().item()
    if len(shape) < 2 or dims not in (tuple(every[1:]), tuple(every[:-1])) or isinstance(count, Length):
        return False
    if count >= MAX_COUNT or not FACTORS[0] <= factor < FACTORS[1]:
        return False
    scales = _scales(factor, count)
    if scales is None:
        return False
    name, graph = operation.name, writer.graph
    operands = [
        tensor_of(source),
        graph.constant(f"{name}/factor", scales[0], numpy.float32),
        writer.zero_point(source),
        graph.constant(f"{name}/share", scales[1], numpy.float32),
        writer.zero_point(operation.output),
    ]
    settings = dict(domain=MICROSOFT, channels_last=int(dims[0] == 1))
    if isinstance(operation, AveragePool) or operation.keepdim:
        writer.limited("QLinearGlobalAveragePool", operands, operation, **settings)
        return True
    pooled = graph.node("QLinearGlobalAveragePool", operands, f"{target}/pooled", **settings)
    writer.limited("Reshape", [pooled, writer.shape_constant(name, (0, *writer.shape(operation.output)))], operation)
    return True


def _scales(factor: float, count: int) -> tuple[float, float] | None:
    """Scales of input and output of which the kernel makes just `factor`; None where none are found."""
    share = numpy.float32(1 / count)
    whole = share * numpy.float32(count)  # 1, or beside it
    scale = numpy.float32(factor)
    below, above = (numpy.nextafter(scale, numpy.float32(side)) for side in (0, numpy.inf))
    return next(((float(near), float(share)) for near in (scale, above, below) if near / whole == scale), None)
