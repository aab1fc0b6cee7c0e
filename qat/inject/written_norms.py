"""RMS norms that a network writes out: `x * rsqrt(mean(x ** 2) + eps) * weight` (arXiv:1910.07467).

Every step with a rounding of its own would lose what the norm is there for: a mean of squares spans too many orders of
magnitude for 8 bits. So the steps are one region, which ends in one integer kernel.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from qat.inject.calls import Call, Slot, ValueId, operand_at
from qat.inject.exact_kernels import Computed, codes_of
from qat.inject.flow import Flow
from qat.inject.nonlinear import normalize_between
from qat.inject.normalizations import Normalization
from qat.integer.values import Grid

#: What a call of the region does, in order. The root is taken, or its reciprocal, and the value divided or multiplied.
SQUARE, MEAN, EPSILON, ROOT, SCALE, GAIN = "square", "mean", "epsilon", "root", "scale", "gain"


@dataclass(frozen=True)
class NormStep:
    """One call of a written-out norm. root: the value that is normalized. roots: slots that hold it.

    inner: slots that hold the result of another step, and its address. ends: whether the result is rounded.
    """

    role: str
    root: ValueId
    roots: tuple[Slot, ...]
    inner: tuple[tuple[Slot, int], ...]
    ends: bool


def written_norms(flow: Flow, may_fuse) -> dict[int, NormStep]:
    """Every step of every written-out norm, by address. may_fuse: whether a call may be a step of one."""
    found: dict[int, NormStep] = {}
    for call in flow.calls.values():
        if call.operation.name in ("rsqrt", "sqrt"):
            found |= _steps(flow, call, may_fuse) or {}
    return found


def _steps(flow: Flow, root: Call, may_fuse) -> dict[int, NormStep] | None:
    """The steps around a root, None where they are no norm."""
    chain = {ROOT: root}
    for role, name in ((EPSILON, "add"), (MEAN, "mean"), (SQUARE, None)):
        (value, *others) = set(chain[next(reversed(chain))].values()) or (None,)
        maker = None if value is None or others else flow.maker(value)
        if maker is None or (name is not None and maker.operation.name != name):
            return None
        chain[role] = maker
    is_norm = chain[SQUARE].squares and chain[MEAN].averages_last and chain[EPSILON].pointwise
    values = {flow.source(value) for value in chain[SQUARE].values()}
    if not is_norm or len(values) != 1:
        return None
    (x,) = values
    if any(flow.only_reader(chain[role]) is not reader for role, reader in zip(
        (SQUARE, MEAN, EPSILON), (chain[MEAN], chain[EPSILON], root), strict=True
    )):  # fmt: skip
        return None
    scale = flow.only_reader(root)
    if scale is None or scale.operation.name != ("mul" if root.operation.name == "rsqrt" else "div"):
        return None
    if {flow.source(value) for value in scale.values()} != {x, ("call", root.address, 0)}:
        return None
    chain[SCALE] = scale
    gain = flow.only_reader(scale)
    if gain is not None and gain.operation.name == "mul" and _is_gain(gain):
        chain[GAIN] = gain
    if not all(may_fuse(call) for call in chain.values()):
        return None
    last = chain.get(GAIN, scale)
    addresses = {call.address for call in chain.values()}
    return {
        call.address: _step(flow, role, call, x, addresses, ends=call is last) for role, call in chain.items()
    }  # fmt: skip


def _is_gain(call: Call) -> bool:
    """Whether a product is with a constant vector along the last dimension."""
    constants = list(call.constants())
    return len(constants) == 1 and len(set(call.values())) == 1 and 1 == _rank(constants[0].shape)


def _rank(shape: tuple[int, ...]) -> int:
    """Dimensions without leading ones."""
    return len(shape) - next((place for place, size in enumerate(shape) if size != 1), len(shape))


def _step(flow: Flow, role: str, call: Call, x: ValueId, addresses: set[int], ends: bool) -> NormStep:
    roots, inner = [], []
    for slot, operands in call.operands.items():
        for operand in operands:
            if operand.value is None:
                continue
            source = flow.source(operand.value)
            if source[0] == "call" and source[1] in addresses and source != x:
                inner.append((slot, source[1]))
            else:
                roots.append(slot)
    return NormStep(role, x, tuple(roots), tuple(inner), ends)


@dataclass(frozen=True)
class Statistic:
    """A norm in the making, in eval mode. x: the value in real units, on `grid`. over: last dimensions of the mean."""

    x: Tensor
    grid: Grid
    over: int = 1
    epsilon: float = 0.0
    gain: Tensor | None = None

    def computed(self) -> Computed:
        """What waits for the quantizer behind the norm."""
        norm = Normalization(tuple(self.x.shape[1:]), self.over, False, self.epsilon, self.gain, None)
        return Computed(normalize_between(self.grid, norm), (codes_of(self.x, self.grid),), (self.grid,))


def follow(step, known: dict[int, Statistic], grid: Grid, args: tuple, kwargs: dict) -> Statistic | None:
    """The norm after one more step. known: by address. grid: of the value that is normalized."""
    if step.role == SQUARE:
        return Statistic(operand_at(args, kwargs, step.roots[0]), grid)
    ((slot, source),) = step.inner[:1]
    before = known.get(source)
    if before is None:
        return None
    match step.role:
        case "mean":
            dims = args[1] if len(args) > 1 else kwargs["dim"]
            return replace(before, over=1 if isinstance(dims, int) else len(dims))
        case "epsilon":
            alpha = kwargs.get("alpha", 1)
            scales_the_mean = alpha != 1 and slot != ("args", 0)
            return None if scales_the_mean else replace(before, epsilon=float(_other(args, kwargs, slot)) * alpha)
        case "gain":
            return replace(before, gain=_other(args, kwargs, slot).detach())
    return before


def _other(args: tuple, kwargs: dict, slot: Slot):
    """The operand beside the one at `slot`."""
    rest = [value for place, value in enumerate(args) if ("args", place) != slot]
    rest += [value for name, value in kwargs.items() if ("kwargs", name) != slot and name != "alpha"]
    return rest[0]
