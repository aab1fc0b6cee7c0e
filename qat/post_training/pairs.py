"""Pairs of layers with nothing between them but what commutes with scaling channels by positive numbers.

They are read from the recording of the network, which knows calls and values: names of modules and their order mean
nothing here, and functional code has pairs like any other.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qat.folding import BatchNorm
from qat.inject.accumulators import batch_norm_of
from qat.inject.calls import Call
from qat.inject.flow import Flow
from qat.inject.handle import Handle
from qat.inject.weighted import weighted_form
from qat.post_training.rows import Geometry
from qat.post_training.watching import FLOAT, flow_of, only_reader, operand_in, tensors_of, watched

#: What may stand between the two: f(s x) = s f(x) for every s > 0, channel by channel. Whether channels are still the
#: same ones behind a mean or a reshape is tried out afterwards.
_HOMOGENEOUS = frozenset(
    """
    relu leaky_relu prelu max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    amax avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum flatten
    reshape view squeeze unsqueeze dropout dropout1d dropout2d dropout3d feature_dropout contiguous clone detach alias
    pad constant_pad_nd pixel_shuffle
    """.split()
)


@dataclass(frozen=True)
class Norm:
    """A batch norm behind a layer: the names of its tensors, and its constant."""

    mean: str
    variance: str
    weight: str
    bias: str
    eps: float


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads what the first makes.

    first, second: names of the weights. bias: name of the first one's. geometry: of both.
    """

    first: str
    bias: str | None
    norm: Norm | None
    second: str
    first_geometry: Geometry
    second_geometry: Geometry

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor that scaling changes."""
        norm = () if self.norm is None else (self.norm.mean, self.norm.weight, self.norm.bias)
        return tuple(name for name in (self.first, self.bias, self.second, *norm) if name is not None)


@dataclass(frozen=True)
class _Seen:
    """One execution: the function and its arguments."""

    function: Callable
    args: tuple
    kwargs: dict


def pairs_of(handle: Handle, run: Callable[[], None]) -> list[Pair]:
    """The pairs of a prepared network, in the order of its calls. run: one forward in eval mode."""
    seen: dict[int, list[_Seen]] = {}
    handle.set_state(FLOAT)
    with watched(handle, lambda address, *call: seen.setdefault(address, []).append(_Seen(*call))):
        run()
    once = {address: executions[0] for address, executions in seen.items() if len(executions) == 1}
    recording, flow = handle.recording, flow_of(handle)
    names = {id(tensor): name for name, tensor in tensors_of(handle.module)}
    uses = Counter(operand.constant for call in recording.calls.values() for operand in call.constants())
    found = (_pair(call, flow, once, names) for call in recording.calls.values() if call.address in once)
    return [pair for pair in found if pair is not None and all(uses[name] == 1 for name in pair.names)]


def _pair(first: Call, flow: Flow, seen: Mapping[int, _Seen], names: Mapping[int, str]) -> Pair | None:
    """The pair that begins with a call; None where there is none."""
    if weighted_form(first) is None:
        return None
    norm, value = None, ("call", first.address, 0)
    while (reader := only_reader(value, flow)) is not None:
        if reader.operation.name == "batch_norm" and value == ("call", first.address, 0):
            norm = _norm(seen.get(reader.address), names)
            if norm is None:
                return None
        elif weighted_form(reader) is not None:
            return _of(first, norm, reader, seen, names)
        elif reader.operation.name not in _HOMOGENEOUS:
            return None
        value = ("call", reader.address, 0)
    return None


def _of(
    first: Call, norm: Norm | None, second: Call, seen: Mapping[int, _Seen], names: Mapping[int, str]
) -> Pair | None:
    """The pair of two calls, where all that is to be scaled is a parameter or a buffer."""
    if second.address not in seen:
        return None
    parts = []
    for call in (first, second):
        form, run = weighted_form(call), seen[call.address]
        weight, bias = (operand_in(slots, run.args, run.kwargs) for slots in (form.weight, form.bias))
        geometry = Geometry.of(call.operation.name, run.args, run.kwargs, weight)
        parts.append((names.get(id(weight)), None if bias is None else names.get(id(bias), ""), geometry))
    (first_weight, bias, first_geometry), (second_weight, _, second_geometry) = parts
    if first_weight is None or second_weight is None or bias == "":
        return None
    return Pair(first_weight, bias, norm, second_weight, first_geometry, second_geometry)


def _norm(seen: _Seen | None, names: Mapping[int, str]) -> Norm | None:
    """The names in a call to a batch norm; None where it has no statistics or no weight and bias of its own."""
    if seen is None:
        return None
    _, constants = batch_norm_of(seen.function, seen.args, seen.kwargs)
    tensors = (constants.mean, constants.variance, constants.weight, constants.bias)
    found = [names.get(id(tensor)) for tensor in tensors]
    return None if None in found else Norm(*found, eps=constants.eps)


def constants_of(norm: Norm, tensor: Callable) -> BatchNorm:
    """The numbers of a batch norm. tensor: gives one by its name."""
    return BatchNorm(
        *(tensor(name).detach() for name in (norm.mean, norm.variance, norm.weight, norm.bias)), eps=norm.eps
    )
