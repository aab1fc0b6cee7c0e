"""Calls that a rule leaves in float: each becomes a float island of the program, a function between two grids.

One reading of a call serves all: whether it can be an island, what the eval forward computes, and the single node that
stands for it in an exported graph.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from qat.functional import finite_gradient
from qat.inject.calls import Slot
from qat.inject.exact_kernels import Computed, codes_of
from qat.inject.masks import left_out
from qat.inject.operations import Operation
from qat.integer.float_functions import FLOAT_FUNCTIONS, Argument, FloatFunction
from qat.integer.operations import MASK_GRID, FloatIsland
from qat.integer.operations.islands import FloatWeight
from qat.integer.values import Grid

#: Parameters in torch's order, where that is not the operands and then the arguments of the function.
_ORDERS = {
    "layer_norm": "input normalized_shape weight bias eps cudnn_enable",
    "rms_norm": "input normalized_shape weight eps",
    "group_norm": "input num_groups weight bias eps cudnn_enabled",
    "instance_norm": "input running_mean running_var weight bias use_input_stats momentum eps",
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
    "softmax": "input dim _stacklevel dtype",
    "log_softmax": "input dim _stacklevel dtype",
    "hardtanh": "input min_val max_val inplace",
    "cdist": "x1 x2 p compute_mode",
}
#: Of `torch.batch_norm`, which has another order than that of `torch.nn.functional`.
_NATIVE_BATCH_NORM = "input weight bias running_mean running_var training momentum eps cudnn_enabled"
#: Parameters that say nothing about the result of the eval forward.
_IGNORED = frozenset("""
    inplace out training momentum cudnn_enable cudnn_enabled use_input_stats _stacklevel compute_mode
""".split())  # fmt: skip
#: Other names of parameters, by the number of the operand or by what they are called here.
_FIRST_NAMES, _SECOND_NAMES = frozenset({"self", "input", "x", "A", "x1", "input1"}), frozenset({"mat2", "exponent"})
_RENAMED = {"p": "ord", "axis": "dim"}
_FUSED_STATISTICS = ("running_mean", "running_var")


class NoIsland(Exception):
    """A call cannot be a float island; the message says why."""


@dataclass(frozen=True)
class IslandCall:
    """A call as a function of `FLOAT_FUNCTIONS`. tensors: its operands by name. slots: where they stand in the call."""

    function: str
    tensors: Mapping[str, Tensor]
    slots: Mapping[Slot, str]
    arguments: Mapping[str, Argument]


def island_call(operation: Operation, function: Callable, args: tuple, kwargs: dict) -> IslandCall:
    """The call as a function that a float island may hold. Raises `NoIsland`."""
    definition = FLOAT_FUNCTIONS.get(operation.name)
    if definition is None:
        raise NoIsland("no float island holds it")
    tensors: dict[str, Tensor] = {}
    slots: dict[Slot, str] = {}
    arguments: dict[str, Argument] = {}
    for slot, name, value in _named(operation.name, definition, function, args, kwargs):
        if operation.name == "instance_norm" and name in _FUSED_STATISTICS:
            continue
        if name in definition.tensors and isinstance(value, int | float) and not isinstance(value, bool):
            value = torch.tensor(float(value))
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise NoIsland(f"its {name} holds {value.dtype}")
            tensors[name], slots[slot] = value, name
        elif isinstance(value, torch.dtype):
            if value != torch.float32:
                raise NoIsland(f"it computes in {value}")
        elif value is not None:
            arguments[name] = _plain(name, value, definition.arguments.get(name, ""))
    problem = definition.problem({name: tensor.dim() for name, tensor in tensors.items()}, arguments)
    if problem is not None:
        raise NoIsland(problem)
    return IslandCall(operation.name, tensors, slots, arguments)


def reason_against_island(
    operation: Operation, function: Callable, args: tuple, kwargs: dict, is_value: Callable[[Tensor], bool]
) -> str | None:
    """Why a rule cannot leave the call in float as an island; None where it can. is_value: tells inputs' values."""
    try:
        call = island_call(operation, function, args, kwargs)
    except NoIsland as problem:
        return str(problem)
    given = dict(zip(_ORDERS["instance_norm"].split(), args, strict=False)) | kwargs
    if operation.name == "instance_norm" and not given.get("use_input_stats", True):
        return "it takes running statistics; use a batch norm"
    constants = FLOAT_FUNCTIONS[operation.name].constants
    varying = next((name for name, tensor in call.tensors.items() if name in constants and is_value(tensor)), None)
    return None if varying is None else f"its {varying} depends on the inputs"


def computed(call: IslandCall, grids: Mapping[Slot, Grid]) -> Computed:
    """What the eval forward computes of a call: the kernel of its island, once the quantizer behind it is known.

    grids: of its operands by slot; the others are constants.
    """
    on_grids = {call.slots[slot]: grid for slot, grid in grids.items() if slot in call.slots}
    codes = {name: codes_of(call.tensors[name], grid) for name, grid in on_grids.items()}
    if call.function == "softmax" and "input" in on_grids:
        mask = left_out(call.tensors["input"])
        if bool(mask.any()):
            on_grids["mask"], codes["mask"] = MASK_GRID, torch.logical_not(mask)
    constants = {name: tensor.detach() for name, tensor in call.tensors.items() if name not in on_grids}
    make = between(call.function, tuple(on_grids), constants, call.arguments)
    return Computed(make, tuple(codes.values()), tuple(on_grids.values()))


def between(
    function: str, operands: tuple[str, ...], constants: Mapping[str, Tensor], arguments: Mapping[str, Argument],
    merged: int = 0,
):  # fmt: skip
    """What makes the island once its output grid is known. operands: names of those that have codes."""
    weights = tuple(FloatWeight(name, values.float().contiguous()) for name, values in constants.items())

    def make(grid: Grid, clamp_min: int, clamp_max: int, count: int = 1, **names) -> FloatIsland:
        unnamed = {"name": "_", "source": "", "output": "_", "inputs": tuple(f"_{index}" for index in range(count))}
        return FloatIsland(
            **(names or unnamed), clamp_min=clamp_min, clamp_max=clamp_max, function=function, operands=operands,
            weights=weights, arguments=FloatIsland.written(arguments), merged=merged,
        )  # fmt: skip

    return make


def with_finite_gradients(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments of an island, to which no NaN and no infinity comes back: 0 does instead.

    Quantized operands are exactly 0 all the time, where a norm, a root or a distance has no gradient.
    """
    return pytree.tree_map(lambda leaf: _Finite.apply(leaf) if _is_trained(leaf) else leaf, (args, kwargs))


def _is_trained(leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


class _Finite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return finite_gradient(gradient)


def mark(call: IslandCall) -> Tensor:
    """One node that stands for the call in an exported graph."""
    return float_island_marker(
        list(call.tensors.values()), ",".join(call.tensors), call.function, json.dumps(call.arguments)
    )


def unmarked(operands: str, arguments: str) -> tuple[list[str], dict[str, Argument]]:
    """(names of the operands, arguments) that `mark` wrote into a node."""
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(arguments).items()}
    return operands.split(","), named


@torch.library.custom_op("qat::float_island", mutates_args=())
def float_island_marker(tensors: list[Tensor], operands: str, function: str, arguments: str) -> Tensor:
    """What a float island computes, as one node of an exported graph. Never run while training."""
    names, named = unmarked(operands, arguments)
    return FLOAT_FUNCTIONS[function].run(**dict(zip(names, tensors, strict=True)), **named).clone()


@float_island_marker.register_fake
def _(tensors: list[Tensor], operands: str, function: str, arguments: str) -> Tensor:
    names, named = unmarked(operands, arguments)
    return torch.empty_like(FLOAT_FUNCTIONS[function].run(**dict(zip(names, tensors, strict=True)), **named))


def _named(name: str, definition: FloatFunction, function: Callable, args: tuple, kwargs: dict):
    """(slot, what the function calls it, value) of everything that a call was given and that counts."""
    order = _ORDERS.get(name, " ".join((*definition.tensors, *definition.arguments, "inplace"))).split()
    if name == "batch_norm" and function is not F.batch_norm:
        order = _NATIVE_BATCH_NORM.split()
    if len(args) > len(order):
        raise NoIsland(f"it has {len(args)} positional arguments")
    given = [(("args", index), order[index], value) for index, value in enumerate(args)]
    given += [(("kwargs", key), key, value) for key, value in kwargs.items()]
    for slot, key, value in given:
        if value is None or key in _IGNORED:
            continue
        if key not in (*definition.tensors, *definition.arguments):
            if key in _FIRST_NAMES:
                key = definition.tensors[0]
            elif key in _SECOND_NAMES and len(definition.tensors) > 1:
                key = definition.tensors[1]
            else:
                key = _RENAMED.get(key, key)
        if key == "alpha" and name in ("add", "sub") and value == 1:
            continue
        if key == "ord" and value == "fro" and name != "linalg_matrix_norm":
            value = 2.0
        yield slot, key, value


def _plain(name: str, value, kinds: str) -> Argument:
    """An argument as plain data."""
    if isinstance(value, list | tuple):
        if not all(isinstance(entry, int) for entry in value):
            raise NoIsland(f"its {name} is {str(value)[:40]}")
        return tuple(int(entry) for entry in value)
    if isinstance(value, int) and not isinstance(value, bool) and kinds == "r":
        return float(value)
    if isinstance(value, bool | str | int | float):
        return value
    raise NoIsland(f"its {name} is a {type(value).__name__}")
