"""Interpolation, pools over windows of unequal size and running sums: products with constant matrices."""

import torch
from torch.fx import Node

from qat.inject.resampling import Interpolation, Resampling, resampling_of
from qat.integer.program import Reshape
from qat.lowering.state import Pending, Program, Quantized, batch_shape, check_quantized, module_path

aten = torch.ops.aten


def resample(program: Program, node: Node, x: Quantized, resampling: Resampling) -> Pending:
    """One product after the other, the last of them waiting for its output grid."""
    *inner, last = resampling.stages(x.shape)
    for stage in inner:
        name = program.unique(f"{module_path(node) or 'network'}.resample")
        make, names = _stage(program, node, x, stage)
        grid = stage.grid_between(x.grid)
        program.operations.append(make(grid, grid.quant_min, grid.quant_max, **names(name)))
        made = program.value(name, _shape_of(stage), grid, x.quantizer)
        x = program.move(node, made, stage.result, Reshape, shape=stage.result)
    make, names = _stage(program, node, x, last)

    def build(name, output, grid, clamp_min, clamp_max):
        return make(grid, clamp_min, clamp_max, **names(name) | {"output": output})

    return Pending(_shape_of(last), build, view=last.result if last.result != _shape_of(last) else None)


def interpolate(mode: str, antialias: bool = False):
    """aten.upsample_*: with scales as they were given, or sizes."""

    def lower(program: Program, node: Node, x, sizes, align_corners, scales=None) -> Pending:
        check_quantized(x)
        scales = None if scales is None else tuple(scales)
        call = Interpolation(mode, batch_shape(node)[1:], scales, align_corners, antialias)
        return resample(program, node, x, call.resampling(x.shape[1:]))

    return lower


def cumsum(program: Program, node: Node, x, dim, dtype=None) -> Pending:
    """aten.cumsum: a product with a triangle of ones."""
    check_quantized(x)
    return resample(program, node, x, resampling_of("cumsum", (x, x.dim(dim, "adds up")), {}, x.shape, x.shape))


def unequal_windows(name: str, program: Program, node: Node, args: tuple, kwargs: dict) -> Pending | None:
    """An average pool over windows of several sizes; None where they are of one size. name: canonical."""
    x = args[0]
    check_quantized(x)
    resampling = resampling_of(name, args, kwargs, x.shape, batch_shape(node))
    return None if resampling is None else resample(program, node, x, resampling)


def _stage(program: Program, node: Node, x: Quantized, stage):
    viewed = x if stage.view == x.shape else program.move(node, x, stage.view, Reshape, shape=stage.view)
    constant = program.constant(f"{module_path(node) or 'network'}.matrix", stage.grid, stage.codes)
    inputs = stage.operands(viewed.name, constant.name)

    def names(name: str) -> dict:
        return {"name": name, "source": module_path(node), "inputs": inputs, "output": name}

    return stage.make(x.grid), names


def _shape_of(stage) -> tuple[int, ...]:
    """Shape of what the product of a stage makes."""
    if stage.constant_first:
        return (stage.view[0], stage.codes.shape[-2], stage.view[-1])
    return (stage.view[0], stage.codes.shape[-1])


RULES = {
    aten.upsample_linear1d.vec: interpolate("linear"),
    aten.upsample_bilinear2d.vec: interpolate("bilinear"),
    aten.upsample_trilinear3d.vec: interpolate("trilinear"),
    aten.upsample_bicubic2d.vec: interpolate("bicubic"),
    aten._upsample_bilinear2d_aa.vec: interpolate("bilinear", antialias=True),
    aten._upsample_bicubic2d_aa.vec: interpolate("bicubic", antialias=True),
    aten.cumsum.default: cumsum,
}
