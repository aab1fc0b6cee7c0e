"""Fixed linear maps along single dimensions: interpolation, pools over windows of unequal size, running sums.

All of them are `y = A x` along each dimension in turn, `A` a small constant matrix: what the one-dimensional form of
the same torch function makes of the identity. The entries of `A` lie on a grid whose step is a power of two, rounded so
that every row keeps its sum: a constant image stays what it is. Between two dimensions codes stay on the grid of the
input, or on a coarser one where weights below zero can overshoot it.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.integer.geometry import per_dimension
from qat.integer.kernels import compute
from qat.integer.program import MatMul
from qat.integer.semantics import USUAL, Semantics
from qat.integer.values import Grid, float32

#: Largest span of the codes of a matrix: one less than 8 bits hold, since rounding may add a step.
_SPAN = 254
#: Operations that are such maps, some of them only with some arguments.
RESAMPLED = frozenset(
    {"interpolate", "cumsum", *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))}
)
#: Modes that have a two-dimensional form only.
_TWO_DIMENSIONAL = frozenset({"bilinear", "bicubic"})


@dataclass(frozen=True)
class Interpolation:
    """A call of `F.interpolate`. sizes: of the result's spatial dimensions. scales: as given, None if sizes were."""

    mode: str
    sizes: tuple[int, ...]
    scales: tuple[float, ...] | None = None
    align_corners: bool | None = None
    antialias: bool = False

    @classmethod
    def of_call(cls, args: tuple, kwargs: dict, result_shape) -> "Interpolation":
        """The interpolation of a call of `F.interpolate`."""
        names = "input size scale_factor mode align_corners recompute_scale_factor antialias".split()
        given = dict(zip(names, args, strict=False)) | kwargs
        sizes = tuple(result_shape[2:])
        factor = None if given.get("recompute_scale_factor") else given.get("scale_factor")
        if factor is not None:
            factor = tuple(map(float, factor)) if isinstance(factor, tuple | list) else (float(factor),) * len(sizes)
        mode, antialias = given.get("mode", "nearest"), bool(given.get("antialias", False))
        return cls(mode, sizes, factor, given.get("align_corners"), antialias)

    def applied(self, rows: Tensor, index: int) -> Tensor:
        """What the interpolation of spatial dimension `index` makes of each of `rows`, (C, size)."""
        wide = self.mode in _TWO_DIMENSIONAL
        size, scale = self.sizes[index], None if self.scales is None else self.scales[index]
        options = {"align_corners": self.align_corners, "antialias": self.antialias} if wide else {}
        mode = self.mode
        if mode == "trilinear":
            mode, options = "linear", {"align_corners": self.align_corners}
        elif mode == "linear":
            options = {"align_corners": self.align_corners}
        if scale is None:
            options["size"] = (1, size) if wide else size
        else:
            options["scale_factor"] = (1.0, scale) if wide else scale
        result = F.interpolate(rows[None, :, None] if wide else rows[None], mode=mode, **options)
        return result.reshape(len(rows), size)

    def indices(self, index: int, size: int) -> Tensor:
        """Which of `size` entries of spatial dimension `index` a nearest mode takes, int64."""
        return self.applied(torch.arange(size, dtype=torch.float32)[None], index)[0].to(torch.int64)

    def resampling(self, spatial: tuple[int, ...]) -> "Resampling":
        """The interpolation as matrices, but for mode "area". spatial: sizes of the input's spatial dimensions."""
        matrices = [_matrix(functools.partial(self.applied, index=index), size) for index, size in enumerate(spatial)]
        return Resampling.over_last(matrices)


@dataclass(frozen=True)
class Step:
    """One dimension. dim: from the end, so negative. matrix: float64 (outputs, inputs)."""

    dim: int
    matrix: Tensor


@dataclass(frozen=True)
class Resampling:
    """A linear map along one dimension after the other, then times `factor`."""

    steps: tuple[Step, ...]
    factor: float = 1.0

    @classmethod
    def over_last(cls, matrices: list[Tensor], factor: float = 1.0) -> "Resampling":
        """The map of the last dimensions, a matrix for each. What makes the value smallest comes first."""
        steps = [Step(index - len(matrices), matrix) for index, matrix in enumerate(matrices)]
        moving = [step for step in steps if not _is_identity(step.matrix)] or steps[-1:]
        return cls(tuple(sorted(moving, key=lambda step: step.matrix.shape[0] / step.matrix.shape[1])), factor)

    def stages(self, shape: tuple[int, ...]) -> list["Stage"]:
        """The products of matrices that it is. shape: of the value, without the batch."""
        stages = []
        for index, step in enumerate(self.steps):
            factor = self.factor if index == len(self.steps) - 1 else 1.0
            stages.append(Stage.of_step(step, shape, factor))
            shape = stages[-1].result
        return stages


@dataclass(frozen=True)
class Stage:
    """One product with a constant matrix. view: shape of the value for it, without the batch. result: shape behind it.

    codes: uint8 codes of the constant on `grid`, of the rank of `view`. constant_first: whether it is the left factor.
    """

    view: tuple[int, ...]
    result: tuple[int, ...]
    codes: Tensor
    grid: Grid
    constant_first: bool
    factor: float

    @classmethod
    def of_step(cls, step: Step, shape: tuple[int, ...], factor: float) -> "Stage":
        """A step on a value of `shape`."""
        axis = len(shape) + step.dim
        codes, grid = matrix_codes(step.matrix)
        result = (*shape[:axis], step.matrix.shape[0], *shape[axis + 1 :])
        before, behind = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        if behind == 1:
            return cls((before, shape[axis]), result, codes.T.contiguous(), grid, False, factor)
        return cls((before, shape[axis], behind), result, codes[None], grid, True, factor)

    def operands(self, value, constant) -> tuple:
        """(value, constant) in the order of the product."""
        return (constant, value) if self.constant_first else (value, constant)

    def make(self, source: Grid, semantics: Semantics = USUAL):
        """Makes the operation for a value on `source`, as `qat.inject.nonlinear` describes it."""
        first, second = self.operands(source, self.grid)

        def make(grid: Grid, clamp_min: int, clamp_max: int, operands: int = 2, **names) -> MatMul:
            factor = float32(self.factor)
            return MatMul(
                **(names or {"name": "_", "source": "", "inputs": ("_0", "_1"), "output": "_"}), clamp_min=clamp_min,
                clamp_max=clamp_max, factor=factor,
                multiplier=semantics.multiplier(
                    MatMul, (first, second, grid), (first.scale, float32(second.scale * factor), grid.scale)
                ),
            )  # fmt: skip

        return make

    def grid_between(self, source: Grid) -> Grid:
        """The grid of the result where another stage follows: that of the value, `source`, if all results lie on it."""
        weights = (self.codes[0] if self.constant_first else self.codes.T).double() - self.grid.zero_point
        above, below = (weights.clamp(**bound).sum(1) * self.grid.scale for bound in ({"min": 0}, {"max": 0}))
        lowest, highest = source.reach
        reach = float((above * lowest + below * highest).min()), float((above * highest + below * lowest).max())
        if reach[0] >= lowest and reach[1] <= highest:
            return source
        widening = (reach[1] - reach[0]) / (highest - lowest)
        zero_point = source.quant_min + round(-reach[0] / widening)
        return Grid(float32(source.scale * widening), zero_point, source.quant_min, source.quant_max)

    def run(self, codes: Tensor, source: Grid, semantics: Semantics = USUAL) -> tuple[Tensor, Grid]:
        """(codes (N, *result), their grid), for codes (N, ...) of a value on `source`."""
        target = self.grid_between(source)
        operation = self.make(source, semantics)(target, target.quant_min, target.quant_max)
        constant = self.codes[None].to(codes.device)
        made = compute(operation, self.operands(self.viewed(codes), constant), self.operands(source, self.grid), target)
        return made.reshape(len(codes), *self.result), target

    def viewed(self, codes: Tensor) -> Tensor:
        """Codes (N, ...) as the product takes them."""
        return codes.reshape(len(codes), *self.view)


def matrix_codes(matrix: Tensor) -> tuple[Tensor, Grid]:
    """(uint8 codes, their grid) of a constant matrix, float64 (outputs, inputs).

    The step is the finest power of two with which all entries fit 8 bits. The rounding errors of a row add up to less
    than a step: what was rounded down most is rounded up instead.
    """
    lowest, highest = min(float(matrix.min()), 0.0), max(float(matrix.max()), 0.0)
    exponent = math.floor(math.log2((_SPAN - 1) / max(highest - lowest, 2.0**-100)))
    steps = matrix * 2.0**exponent
    codes = steps.floor()
    missing = (steps.sum(1).round() - codes.sum(1)).to(torch.int64)
    ranks = (steps - codes).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    codes += ranks < missing[:, None]
    zero_point = max(-int(codes.min()), 0)
    return (codes + zero_point).to(torch.uint8), Grid(2.0**-exponent, zero_point, 0, 255)


def resampling_of(
    name: str, args: tuple, kwargs: dict, shape: tuple[int, ...], made: tuple[int, ...]
) -> Resampling | None:
    """The call of an operation as matrices; None where it averages windows of one size, which has a kernel of its own.

    name: canonical name. args, kwargs: of the torch function, or of the aten operation of that name. shape, made: of
    its value and its result, without the batch.
    """
    if name == "interpolate":
        call = Interpolation.of_call(args, kwargs, (0, *made))
        if call.mode != "area":
            return call.resampling(shape[1:])
        name = f"adaptive_avg_pool{len(call.sizes)}d"  # which is what torch computes, and exports
    if name == "cumsum":
        dim = args[1] if len(args) > 1 else kwargs["dim"]
        return running_sum(shape[dim % (len(shape) + 1) - 1], dim % (len(shape) + 1) - len(shape) - 1)
    dims = int(name[-2])
    spatial, windows = shape[-dims:], made[-dims:]
    if name.startswith("adaptive_avg_pool"):
        is_even = not any(size % count for size, count in zip(spatial, windows, strict=True))
        return None if is_even else adaptive_average(spatial, windows)
    return _average_pool(args, kwargs, spatial, windows)


def _average_pool(args: tuple, kwargs: dict, spatial: tuple[int, ...], windows: tuple[int, ...]) -> Resampling | None:
    names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override".split()
    given = dict(zip(names, args, strict=False)) | kwargs
    dims = len(spatial)
    kernel, padding = (per_dimension(given.get(key) or 0, dims) for key in ("kernel_size", "padding"))
    stride = per_dimension(given.get("stride") or kernel, dims)
    overhangs = any(
        (count - 1) * step + extent > size + 2 * amount
        for size, count, extent, step, amount in zip(spatial, windows, kernel, stride, padding, strict=True)
    )
    include_pad, divisor = given.get("count_include_pad", True), given.get("divisor_override")
    if not overhangs and (include_pad or not any(padding)) and not divisor:
        return None
    return average_pool(spatial, kernel, stride, padding, bool(given.get("ceil_mode")), include_pad, divisor)


def average_pool(
    spatial: tuple[int, ...], kernel, stride, padding, ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> Resampling:
    """Means over windows of any kind. kernel, stride, padding: one entry for each of the `spatial` dimensions."""
    matrices = []
    for size, extent, step, amount in zip(spatial, kernel, stride, padding, strict=True):

        def pool(rows, extent=extent, step=step, amount=amount):
            return F.avg_pool1d(rows[None], extent, step, amount, ceil_mode, count_include_pad)[0]

        matrix = _matrix(pool, size)
        if divisor:  # every element weighs the same, also in windows that overhang
            matrix = (matrix > 0).double() / extent
        matrices.append(matrix)
    return Resampling.over_last(matrices, math.prod(kernel) / divisor if divisor else 1.0)


def adaptive_average(spatial: tuple[int, ...], wanted: tuple[int, ...]) -> Resampling:
    """Means over as many windows of nearly equal size as are wanted."""
    return Resampling.over_last([
        _matrix(lambda rows, count=count: F.adaptive_avg_pool1d(rows[None], count)[0], size)
        for size, count in zip(spatial, wanted, strict=True)
    ])  # fmt: skip


def running_sum(size: int, dim: int) -> Resampling:
    """Sums of all elements so far. dim: from the end, so negative."""
    return Resampling((Step(dim, torch.ones(size, size, dtype=torch.float64).tril()),))


def _matrix(function, size: int) -> Tensor:
    """The matrix (outputs, size) of a linear function of rows."""
    with torch.no_grad():
        return function(torch.eye(size, dtype=torch.float64)).T.contiguous()


def _is_identity(matrix: Tensor) -> bool:
    return matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype))
