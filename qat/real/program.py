"""RealProgram: a network whose activations are real numbers, as nodes of an explicit list of functions.

It is what lies behind files that are not integer: layers multiply weights of few bits, or codes of tokens whose range
is found at run time, and everything else is float32. `RealProgram` is no `IntegerProgram`, and never claims to be one:
`float_operations` lists what it computes in real numbers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.calls import by_input_name, structured
from qat.integer.program import Layer
from qat.real.float16 import fits_float16
from qat.real.functions import DTYPES, FUNCTIONS, codes_and_sums, scaled_sums
from qat.real.nodes import Argument, RealInput, RealNode, RealOutput, Ref
from qat.real.weights import RealWeight
from qat.spec import ACTIVATIONS, STORAGES
from qat.tokens import TOKEN_MAX

STRUCTURES = ("tensor", "tuple", "dict")
BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, eq=False)
class RealProgram:
    """Nodes in the order in which they run.

    inputs, outputs: in the order of the network's arguments and results. weights: codes by name. constants: tensors by
    name, as the network holds them, those of real numbers rounded to `storage` but still float32.
    activations: "dynamic" or "float". storage: how a file keeps real constants and scales, see `qat.QuantConfig`; what
    float16 cannot hold stays float32 (`fits_float16`).
    output_structure: as of `IntegerProgram`.
    """

    inputs: tuple[RealInput, ...]
    outputs: tuple[RealOutput, ...]
    nodes: tuple[RealNode, ...]
    weights: Mapping[str, RealWeight] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    activations: str = "float"
    storage: str = "float32"
    output_structure: str = "tensor"

    def __post_init__(self):
        if self.activations not in ACTIVATIONS[1:] or self.storage not in STORAGES:
            raise ProgramError(
                f"activations are {str(self.activations)[:20]!r} and storage {str(self.storage)[:20]!r}; a real "
                f"program has {' or '.join(ACTIVATIONS[1:])}, and {' or '.join(STORAGES)}."
            )
        if self.output_structure not in STRUCTURES or not self.inputs or not self.outputs:
            raise ProgramError("a program has inputs, outputs, and an output_structure of tensor, tuple or dict.")
        known = {*self.weights, *self.constants}
        for name in (*(edge.name for edge in self.inputs), *(node.name for node in self.nodes)):
            if name in known:
                raise ProgramError(f"two tensors of the program are named {name!r}; give each a name of its own.")
            known.add(name)
        made = {*self.weights, *self.constants, *(edge.name for edge in self.inputs)}
        for node in self.nodes:
            if missing := [name for name in node.reads if name not in made]:
                raise ProgramError(f"{node.name!r} reads {missing[0][:80]!r}, which nothing before it makes.")
            if node.tokens and (node.weight not in self.weights or self.activations != "dynamic"):
                raise ProgramError(f"{node.name!r} reads tokens, but multiplies them with no codes of a weight.")
            made.add(node.name)
        for edge in self.outputs:
            if edge.value not in made:
                raise ProgramError(f"output {edge.name!r} is {edge.value[:80]!r}, which nothing makes.")

    def __call__(self, inputs):
        """Run the reference: torch on the CPU, and whole numbers where codes are multiplied.

        inputs: a tensor, tensors by position, or by input name. Returns outputs in `output_structure`.
        """
        values = self.run(inputs)
        return structured(self, {edge.name: values[edge.value] for edge in self.outputs})

    @torch.no_grad()
    def run(self, inputs) -> dict[str, Any]:
        """What the outputs are of what nodes make, by name; the rest is let go once nothing more reads it."""
        held: dict[str, Any] = dict(self.named_inputs(inputs))
        held |= self.constants
        last = {name: index for index, node in enumerate(self.nodes) for name in node.reads}
        kept = {edge.value for edge in self.outputs}
        for index, node in enumerate(self.nodes):
            held[node.name] = self.computed(node, held)
            for name in node.reads:
                if last[name] == index and name not in kept:
                    held.pop(name, None)
        return held

    @torch.no_grad()
    def computed(self, node: RealNode, held: Mapping[str, Any]):
        """What one node makes of what was made before."""
        arguments = self.arguments_of(node, held)
        if node.tokens:
            weight = self.weights[node.weight]
            _, scale, sums = codes_and_sums(node.function, arguments, weight, node.tokens)
            return scaled_sums(sums, scale, weight, arguments.get("bias"), node.tokens[0])
        result = FUNCTIONS[node.function](**arguments)
        return result if node.part is None else result[node.part]

    def arguments_of(self, node: RealNode, held: Mapping[str, Any]) -> dict[str, Any]:
        """What its function takes, by name: weights in real units, the rest of what was made before."""

        def resolve(argument: Argument):
            if isinstance(argument, Ref):
                return self.weights[argument.name].real if argument.name in self.weights else held[argument.name]
            return list(map(resolve, argument)) if isinstance(argument, tuple) else argument

        return {name: resolve(argument) for name, argument in node.arguments}

    def named_inputs(self, inputs) -> dict[str, Tensor]:
        """Inputs by name on the CPU, in the dtypes of their edges. Raises `ProgramError` for others than it takes."""
        given = by_input_name([edge.name for edge in self.inputs], inputs)
        tensors = {}
        for edge in self.inputs:
            tensor = given[edge.name]
            fits = tensor.dim() == len(edge.shape) and all(
                isinstance(wanted, str) or size == wanted for size, wanted in zip(tensor.shape, edge.shape, strict=True)
            )
            if not fits or tensor.is_floating_point() != (edge.dtype == "float32"):
                raise ProgramError(
                    f"input {edge.name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {edge.dtype} of "
                    f"({', '.join(map(str, edge.shape))})."
                )
            tensors[edge.name] = tensor.detach().to("cpu", DTYPES[edge.dtype])
        return tensors

    @functools.cached_property
    def by_name(self) -> dict[str, RealNode]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @property
    def integer_operations(self) -> tuple[RealNode, ...]:
        """Layers that multiply codes of tokens by codes of weights, in integers, between real numbers."""
        return tuple(node for node in self.nodes if node.tokens)

    @property
    def float_operations(self) -> tuple[RealNode, ...]:
        """The nodes that compute in real numbers (`name`, `source`, `function`): all that do not only move them.

        A layer of `integer_operations` is among them: its sums are integers, its input and its result real.
        """
        return tuple(node for node in self.nodes if node.is_float)

    @property
    def way(self) -> str:
        """How the network was quantized, in a word or two."""
        if self.activations == "dynamic":
            return "dynamic"
        if self.weights:
            return "weight-only"
        return {"float16": "fp16", "float32": "fp32"}[self.storage]

    def in_float32(self) -> "RealProgram":
        """The same network with its weights as plain numbers, in float32 throughout: what its latency is beside."""
        return RealProgram(
            inputs=self.inputs,
            outputs=self.outputs,
            nodes=tuple(dataclasses.replace(node, tokens=()) for node in self.nodes),
            constants={**self.constants, **{name: weight.real for name, weight in self.weights.items()}},
            output_structure=self.output_structure,
        )

    def stored_as(self, tensor: Tensor) -> str:
        """The type in which a file keeps a constant of real numbers, or scales."""
        return "float16" if self.storage == "float16" and fits_float16(tensor) else "float32"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers with weights as a report shows them, in order; weights that two share count where they are first.

        The bytes are those of codes at their true width, of scales and of biases as they are stored.
        """
        seen: set[str] = set()
        rows = []
        for node in self.nodes:
            if node.weight is None:
                continue
            names = [node.weight, *(bias.name for bias in (node.named.get("bias"),) if isinstance(bias, Ref))]
            new = [name for name in names if name not in seen]
            seen.update(new)
            weight = self.weights.get(node.weight)
            bits = weight.bits if weight else 8 * BYTES[self.stored_as(self.constants[node.weight])]
            count = weight.count if weight else self.constants[node.weight].numel()
            activation_bits = TOKEN_MAX.bit_length() + 1 if node.tokens else 32
            rows.append(
                Layer(node.name, node.source, node.function.removeprefix("aten.").removesuffix(".default"), bits,
                      activation_bits, count, sum(map(self._bytes_of, new)))
            )  # fmt: skip
        return tuple(rows)

    @property
    def bytes(self) -> int:
        """Bytes of all codes at their true width, and of scales and constants as they are stored."""
        return sum(map(self._bytes_of, (*self.weights, *self.constants)))

    @property
    def float_bytes(self) -> int:
        """Bytes of the same weights and constants in float32."""
        constants = sum(4 * tensor.numel() for tensor in self.constants.values() if tensor.is_floating_point())
        return constants + sum(4 * weight.count for weight in self.weights.values())

    def _bytes_of(self, name: str) -> int:
        weight = self.weights.get(name)
        if weight is not None:
            return weight.packed_bytes + weight.scale.numel() * BYTES[self.stored_as(weight.scale)]
        tensor = self.constants[name]
        return tensor.numel() * (BYTES[self.stored_as(tensor)] if tensor.is_floating_point() else tensor.element_size())

    def save(self, directory: str | PathLike) -> None:
        """Write real_program.json and .safetensors into `directory`, each complete or not at all."""
        from qat.real.storage import save

        save(self, directory)

    @classmethod
    def load(cls, directory: str | PathLike) -> "RealProgram":
        """Read what `save` wrote. Raises `ProgramError` for a file that is damaged or of another version."""
        from qat.real.storage import load

        return load(directory)
