"""The layers with weights of a prepared network that can be adjusted, and what they meet on calibration data."""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from qat.inject import calls as recorded
from qat.inject.accumulators import batch_norm_of
from qat.inject.actions import Action
from qat.inject.handle import Handle
from qat.inject.weighted import weighted_form
from qat.post_training.adjustments import Adjustments
from qat.post_training.moments import Moments, spread
from qat.post_training.rows import Geometry
from qat.post_training.watching import FLOAT, QUANTIZED, flow_of, only_reader, operand_in, tensors_of, watched
from qat.schedule import QuantState


@dataclass(frozen=True)
class Call:
    """One place where a layer runs. name, address: of the layer. bias: the parameter that shifts its outputs, if any.

    mean: the buffer with the running mean of the batch norm folded into it; what is taken off there is taken off as
    well. Both are None where something else uses them, too. runs: executions in one forward.
    """

    name: str
    address: int
    operation: str
    bias: str | None
    mean: str | None
    runs: int

    @property
    def shift(self) -> str | None:
        """The one of the two that a correction goes to."""
        return self.bias or self.mean


@dataclass
class Layer:
    """All calls with one weight. weight: name of its quantizer.

    owned: whether that is the name of a parameter or buffer as well, which nothing but these calls rounds.
    """

    weight: str
    owned: bool
    calls: list[Call] = field(default_factory=list)


def layers_of(handle: Handle, run: Callable[[], None]) -> list[Layer]:
    """The layers with weights of a prepared network, in the order in which a forward runs them.

    run: one forward in eval mode.
    """
    names = {id(tensor): name for name, tensor in tensors_of(handle.module)}
    calls, actions = handle.recording.calls, handle.plan.actions
    runs: Counter[int] = Counter()
    shifts: dict[int, str | None] = {}  # address of a layer -> its bias, of a batch norm -> its running mean

    def note(address: int, function: Callable, args: tuple, kwargs: dict) -> None:
        runs[address] += 1
        form = weighted_form(calls[address])
        if form is not None:
            shifts[address] = names.get(id(operand_in(form.bias, args, kwargs)))
        elif calls[address].operation.name == "batch_norm":
            shifts[address] = names.get(id(batch_norm_of(function, args, kwargs)[1].mean))

    handle.set_state(FLOAT)
    with watched(handle, note):
        run()
    flow = flow_of(handle)
    uses = Counter(operand.constant for call in calls.values() for operand in call.constants())
    weights = {address: _weight_of(calls[address], action) for address, action in actions.items()}
    elsewhere = {name for address, action in actions.items() for _, name in action.weights if name != weights[address]}
    owned = set(names.values()) - elsewhere
    layers: dict[str, Layer] = {}
    for address, count in runs.items():
        weight = weights[address]
        if weight is None:
            continue
        reader = only_reader(("call", address, 0), flow)
        normed = reader is not None and reader.operation.name == "batch_norm"
        found = shifts.get(address), shifts.get(reader.address) if normed else None
        bias, mean = (name if uses[name] == 1 else None for name in found)
        call = Call(actions[address].layer, address, calls[address].operation.name, bias, mean, count)
        layers.setdefault(weight, Layer(weight, weight in owned)).calls.append(call)
    return list(layers.values())


def _weight_of(call: recorded.Call, action: Action) -> str | None:
    """The quantizer of the weight of a layer, None for any other call."""
    form = weighted_form(call)
    return None if form is None else next((name for slot, name in action.weights if slot in form.weight), None)


@dataclass
class Met:
    """What one call of a layer met on all calibration data. matrix: its weight as rounded, (groups, O, I)."""

    moments: Moments
    geometry: Geometry
    matrix: Tensor


@dataclass(frozen=True)
class _Run:
    """One execution of a layer: rows of its input, and its weight, rounded if the forward rounds."""

    address: int
    rows: Tensor
    matrix: Tensor
    geometry: Geometry


class Calibration:
    """Runs the network on calibration data, in float as it was and quantized as it is, and looks into it.

    run: one forward in eval mode on a batch. batches: of inputs.
    """

    def __init__(self, handle: Handle, adjustments: Adjustments, batches: list, run: Callable[[object], None]):
        self.handle = handle
        self.adjustments = adjustments
        self.batches = batches
        self.run = run

    def met(self, layer: Layer, second: bool) -> dict[int, Met]:
        """What each call of a layer meets, by address. second: whether second moments are wanted.

        What the outputs should be is what the float network computes there, on its own inputs.
        """
        found: dict[int, Met] = {}
        for batch in self.batches:
            with self.adjustments.undone():
                wanted = self._runs(layer, batch, FLOAT)
            for run, real in zip(self._runs(layer, batch, QUANTIZED), wanted, strict=True):
                outputs = real.rows @ real.matrix.transpose(1, 2)
                moments = Moments.of(run.rows, outputs, second)
                if run.address in found:
                    found[run.address].moments.add(moments)
                else:
                    found[run.address] = Met(moments, run.geometry, run.matrix)
        return found

    def _runs(self, layer: Layer, batch, state: QuantState) -> list[_Run]:
        """Each run of a layer in one forward."""
        calls = {call.address: call for call in layer.calls}
        left = sum(call.runs for call in layer.calls)
        runs: list[_Run] = []

        def look(address: int, function: Callable, args: tuple, kwargs: dict) -> None:
            if address not in calls:
                return
            form = weighted_form(self.handle.recording.calls[address])
            x, weight = (operand_in(slots, args, kwargs).detach().float() for slots in (form.inputs, form.weight))
            geometry = Geometry.of(calls[address].operation, args, kwargs, weight)
            rows = geometry.rows(x)
            runs.append(_Run(address, rows[:, spread(rows)], geometry.matrix(weight), geometry))
            if len(runs) == left:
                raise _Seen

        self.handle.set_state(state)
        with watched(self.handle, look), contextlib.suppress(_Seen):
            self.run(batch)
        return runs


class _Seen(BaseException):
    """Ends a forward that has shown what was asked for; no error, and nothing that a network may catch."""
