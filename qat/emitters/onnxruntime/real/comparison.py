"""The file of a real program beside it, node by node: each on the numbers that the file itself had in front of it.

So nothing adds up from layer to layer, and each node has a bound of its own. Codes of weights and of tokens, sums of
their products, integers and what is only moved are equal; float32 functions differ in their last bits; and a layer that
MatMulNBits computes is off by what its kernel rounds: activations, to 8 bits for each group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn import functional as F

from qat.emitters.onnxruntime.real.codes import check_codes
from qat.emitters.onnxruntime.real.graph import TYPES, dtype_of
from qat.emitters.onnxruntime.real.inputs import random_inputs
from qat.emitters.onnxruntime.real.layers import token_base
from qat.emitters.onnxruntime.real.weights import OFFSET, takes_groups
from qat.emitters.onnxruntime.session import open_session, run_session
from qat.errors import ExportError
from qat.real.functions import FUNCTIONS, MOVES, codes_and_sums
from qat.real.nodes import SIZE, RealNode
from qat.real.program import RealProgram
from qat.real.weights import RealWeight

#: Share of the sum of absolute products by which sums of float32 may differ in another order: 168 roundings.
SUM_TOLERANCE = 1e-5
#: Share of its largest result by which a float32 function of one runtime may differ from that of another.
FUNCTION_TOLERANCE = 1e-4

__all__ = ["NodeCheck", "NodeComparison", "check", "refuse_node", "rounding_of_groups"]


@dataclass(frozen=True)
class NodeCheck:
    """One node of a file beside the program's. differing: codes, sums or whole numbers that are not equal, of `total`.

    error: largest difference of a real result, bound: what it may be; the worst of several batches by their quotient.
    """

    name: str
    function: str
    differing: int = 0
    total: int = 0
    error: float = 0.0
    bound: float = 0.0

    @property
    def share(self) -> float:
        """How much of its bound the error takes."""
        return self.error / self.bound if self.bound else float(self.error > 0)

    @property
    def holds(self) -> bool:
        """Whether all that is to be equal is, and the rest within its bound."""
        return not self.differing and self.error <= self.bound

    def __add__(self, other: "NodeCheck") -> "NodeCheck":
        worse = max(self, other, key=lambda each: each.share)
        counts = self.differing + other.differing, self.total + other.total
        return NodeCheck(self.name, self.function, *counts, worse.error, worse.bound)


class NodeComparison:
    """The file at `path`, showing what every node of `program` makes."""

    def __init__(self, program: RealProgram, path: str | PathLike) -> None:
        self.program = program
        model = onnx.load(path)
        made = {name for node in model.graph.node for name in node.output}
        shown = {node.name: TYPES[dtype_of(program, node.name) if node.dtype != SIZE else "int64"]
                 for node in program.nodes if node.name in made}  # fmt: skip
        for node in program.integer_operations:
            shown |= {f"{node.name}/sums": TensorProto.INT32, f"{_base_of(node)}/codes": TensorProto.UINT8,
                      f"{_base_of(node)}/scale": TensorProto.FLOAT}  # fmt: skip
        known = {edge.name for edge in model.graph.output}
        model.graph.output.extend(
            helper.make_tensor_value_info(name, kind, None) for name, kind in shown.items() if name not in known
        )
        self._session = open_session(path, model=model.SerializeToString())

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, NodeCheck]:
        """Every node that computes, by name, on one batch of inputs by name."""
        values = dict(run_session(self._session, inputs)) | dict(inputs) | dict(self.program.constants)
        held = values | {node.name: int(values[node.name]) for node in self.program.nodes if node.dtype == SIZE}
        return {node.name: self._check(node, held, values) for node in self.program.nodes if node.name in values}

    @torch.no_grad()
    def _check(self, node: RealNode, held: Mapping, values: Mapping[str, Tensor]) -> NodeCheck:
        expected = self.program.computed(node, held)
        if node.dtype == SIZE:
            return NodeCheck(node.name, node.function, int(held[node.name] != expected), 1)
        found = values[node.name].reshape(expected.shape)
        if node.tokens:
            return self._check_tokens(node, held, values, expected, found)
        if not expected.is_floating_point() or (node.function in MOVES and node.weight not in self.program.weights):
            return NodeCheck(node.name, node.function, _differing(found, expected), expected.numel())
        finite = expected.isfinite()
        differing = _differing(found[~finite], expected[~finite])
        error = torch.where(finite, (found.double() - expected.double()).abs(), 0.0)
        bound = torch.where(finite, self._bound(node, held, expected), 1.0)
        excess = (error / bound.clamp(min=1e-300)).argmax()
        return NodeCheck(
            node.name, node.function, differing, int((~finite).sum()),
            float(error.flatten()[excess]), float(bound.flatten()[excess]),
        )  # fmt: skip

    def _check_tokens(self, node: RealNode, held, values, expected: Tensor, found: Tensor) -> NodeCheck:
        """Codes, scales, sums and results, all of which are equal."""
        arguments = self.program.arguments_of(node, held)
        codes, scale, sums = codes_and_sums(node.function, arguments, self.program.weights[node.weight], node.tokens)
        own = values[f"{_base_of(node)}/codes"].to(torch.int64) - OFFSET
        pairs = (
            (own, codes.to(torch.int64)), (values[f"{_base_of(node)}/scale"], scale),
            (values[f"{node.name}/sums"].to(torch.int64), sums), (found, expected),
        )  # fmt: skip
        differing = sum(_differing(first, second) for first, second in pairs)
        return NodeCheck(node.name, node.function, differing, sum(second.numel() for _, second in pairs))

    def _bound(self, node: RealNode, held, expected: Tensor) -> Tensor:
        """How far a real result may be from the program's."""
        if node.function in ("linear", "convolution"):
            arguments = self.program.arguments_of(node, held)
            weight = self.program.weights.get(node.weight)
            bias = arguments.pop("bias", None)
            absolute = {"input": arguments["input"].abs(), "weight": arguments["weight"].abs(), "bias": None}
            sums = FUNCTIONS[node.function](**(arguments | absolute)).double()
            bound = SUM_TOLERANCE * (sums + (0.0 if bias is None else float(bias.abs().max())))
            if weight is not None and node.function == "linear" and takes_groups(weight):
                bound = bound + rounding_of_groups(arguments["input"], weight)
            return bound + 1e-30
        peak = expected[expected.isfinite()].abs().max().double() if bool(expected.isfinite().any()) else 0.0
        return torch.as_tensor(FUNCTION_TOLERANCE * peak + 1e-6, dtype=torch.float64)


def _differing(first: Tensor, second: Tensor) -> int:
    """How many entries are not equal; no number is equal to no number."""
    return int(((first != second) & ~(first.isnan() & second.isnan())).sum())


def _base_of(node: RealNode) -> str:
    """How the names of the tensors with a layer's tokens begin."""
    return token_base(node.named["input"].name, node.tokens)


def rounding_of_groups(x: Tensor, weight: RealWeight) -> Tensor:
    """What MatMulNBits may be off from real numbers, float64: sum over groups of (half a step of x) * sum |weights|.

    x: (..., K) is rounded to 8 bits, in steps of max |x| / 127 of its group; a little more, for the step's rounding.
    """
    steps = weight.codes.float() * weight.scale_of_each
    size, missing = weight.group_size, -x.shape[-1] % weight.group_size
    grouped = F.pad(x, (0, missing)).unflatten(-1, (-1, size)).abs().amax(-1).double()  # (..., groups)
    sums = F.pad(steps.abs(), (0, missing)).unflatten(-1, (-1, size)).sum(-1).double()  # (C, groups)
    return (grouped / 127 / 2 * 1.001) @ sums.T


def check(program: RealProgram, path: str | PathLike) -> None:
    """Raise `ExportError` where a node of the file computes something else than that of the program."""
    check_codes(program, path)
    compared = NodeComparison(program, path)
    for inputs in random_inputs(program):
        for found in compared(inputs).values():
            refuse_node(found)


def refuse_node(found: NodeCheck) -> None:
    """Raise `ExportError` for a node that does not hold."""
    if found.holds:
        return
    what = f"a result by {found.error:.3g}, where {found.bound:.3g} is explained"
    if found.differing:
        what = f"{found.differing} of {found.total} numbers that should be equal"
    raise ExportError(
        f"ONNX Runtime computes {found.function} {found.name!r} otherwise than the program ({what}); its kernels for "
        "this processor round otherwise."
    )
