"""A real program under construction: its names, constants, weights and nodes."""

import dataclasses
from collections.abc import Mapping

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from qat.functional import rows
from qat.inject.handle import Handle
from qat.lowering import loops
from qat.lowering.real.operands import Coded, Several, Unlisted, arguments_of, dtype_of, shape_of
from qat.lowering.state import module_path
from qat.real.float16 import rounded_to
from qat.real.functions import FUNCTIONS
from qat.real.nodes import Argument, RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram
from qat.real.weights import RealWeight


class Builder:
    """A real program in the making."""

    def __init__(self, handle: Handle):
        self.handle = handle
        self.nodes: dict[str, RealNode] = {}
        self.weights: dict[str, RealWeight] = {}
        self.constants: dict[str, Tensor] = {}
        self.names: set[str] = set()
        #: what the sizes that follow the inputs are called
        self.symbols: dict[sympy.Symbol, sympy.Symbol] = {}
        #: layers whose batch norm is in their scales
        self.folded: set[str] = set()
        self._names_of: dict[int, str] = {}  # of constants, by identity
        self._weights: dict[tuple[str, bool], str] = {}  # (quantizer, transposed) -> name
        self._alive: list[Tensor] = []

    def program(
        self, inputs: tuple[RealInput, ...], outputs: tuple[RealOutput, ...], structure: str, storage: str
    ) -> RealProgram:
        """What was built, without what no output needs."""
        needed = {edge.value for edge in outputs}
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(node.reads)

        def kept(tensor: Tensor) -> Tensor:
            return rounded_to(storage, tensor) if tensor.is_floating_point() else tensor

        return RealProgram(
            inputs=tuple(edge for edge in inputs if edge.name in needed),
            outputs=outputs,
            nodes=tuple(node for node in self.nodes.values() if node.name in needed),
            weights={
                name: dataclasses.replace(weight, scale=kept(weight.scale))
                for name, weight in self.weights.items() if name in needed
            },
            constants={name: kept(tensor) for name, tensor in self.constants.items() if name in needed},
            activations=self.handle.config.activations,
            storage=storage,
            output_structure=structure,
        )  # fmt: skip

    # --- names and arguments ----------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """`name`, with a number behind it where it is taken."""
        candidate, count = name, 1
        while candidate in self.names:
            count += 1
            candidate = f"{name}#{count}"
        self.names.add(candidate)
        return candidate

    def named(self, name: str, tensor: Tensor) -> Tensor:
        """Remember what a constant is called."""
        self._names_of[id(tensor)] = name
        self._alive.append(tensor)
        return tensor

    def constant(self, tensor: Tensor, name: str) -> Ref:
        """A constant of the program; one tensor has one name."""
        name = self._names_of.get(id(tensor), name)
        if not (name in self.constants and self.constants[name] is tensor):
            name = self.unique(name)
            self.constants[name] = tensor
            self.named(name, tensor)
        return Ref(name)

    def operand(self, argument, name: str) -> Argument:
        """An argument as the program writes it. name: for a constant that has none."""
        if isinstance(argument, Coded):
            return self.weight(argument)
        if isinstance(argument, Tensor):
            return self.constant(argument.contiguous(), name)
        if isinstance(argument, list | tuple):
            return tuple(self.operand(entry, f"{name}.{place}") for place, entry in enumerate(argument))
        if isinstance(argument, torch.dtype):
            return dtype_of(torch.empty((), dtype=argument))
        if argument is None or isinstance(argument, bool | int | float | str | Ref):
            return argument
        raise Unlisted(f"an argument of it is a {type(argument).__name__}")

    def weight(self, coded: Coded) -> Ref:
        """The codes of a constant; a tied weight is there once."""
        quantizer, tensor = coded.quantizer, coded.tensor
        axis = 0 if quantizer.axis is None else quantizer.axis % tensor.dim()
        if coded.transposed:
            tensor, axis = tensor.T, 1 - axis
        key = quantizer.name, coded.transposed
        if key not in self._weights:
            name = self._weights[key] = self.unique(f"{quantizer.name}.T" if coded.transposed else quantizer.name)
            codes = rows(quantizer.codes(coded.tensor), 1 - axis if coded.transposed else axis)
            if codes.dim() == 1:
                codes = codes.reshape(tensor.shape[0], -1)
            parameters, channels = quantizer.qparams(), codes.shape[0]
            scale = parameters.scale.float().reshape(
                -1, parameters.scale.shape[-1] if parameters.scale.dim() > 1 else 1
            )
            self.weights[name] = RealWeight(
                codes=codes.to(torch.int8).contiguous(),
                scale=scale.expand(channels, -1).contiguous(),
                bits=quantizer.bits,
                midrise=parameters.midrise,
                group_size=quantizer.spec.group_size or codes.shape[1],
                shape=tuple(tensor.shape),
                axis=axis,
            )
        return Ref(self._weights[key])

    # --- nodes ------------------------------------------------------------------------------------------------------

    def add(
        self, node: Node, function: str, arguments: Mapping[str, object], name: str | None = None,
        dtype: str | None = None, part: int | None = None, tokens: tuple[int, ...] = (),
    ) -> Ref:  # fmt: skip
        """A node of the program for `node` of the graph."""
        path = "" if dtype == "size" else module_path(node)
        word = function.removeprefix("aten.").partition(".")[0].strip("_")
        name = self.unique(name or ".".join(filter(None, (path, word))))
        made = node.meta["val"]
        self.nodes[name] = RealNode(
            name=name,
            source=path,
            function=function,
            arguments=tuple((key, self.operand(value, f"{name}.{key}")) for key, value in arguments.items()),
            dtype=dtype or dtype_of(made),
            shape=() if dtype == "size" else shape_of(made, self.symbols),
            part=part,
            tokens=tokens,
        )
        return Ref(name)

    def plain(self, node: Node, args: tuple, kwargs: dict):
        """A function under its own name."""
        function = str(node.target)
        if function not in FUNCTIONS:
            name = function.removeprefix("aten.").partition(".")[0]
            if node.target in (loops.BEGIN, loops.END):
                raise Unlisted("such files hold no loops; use activations='static', or cells that are called in turn")
            raise Unlisted(f"{name} is not among the functions of such files; use activations='static', or another one")
        arguments = arguments_of(node, args, kwargs)
        if isinstance(node.meta["val"], tuple | list):
            return Several(node, arguments)
        return self.add(node, function, arguments)

    def part(self, node: Node, several: Several, index: int) -> Ref:
        """One result of a function that has several."""
        return self.add(node, str(several.node.target), several.arguments, part=index)

    def layer(self, node: Node, function: str, arguments: dict, tokens: tuple[int, ...]) -> Ref:
        """A layer with a weight, called as the module it is."""
        weight = arguments["weight"]
        name = module_path(node)
        if isinstance(weight, Coded) and weight.quantizer.name.endswith(".weight"):
            name = weight.quantizer.name.removesuffix(".weight")
        reads_tokens = self.handle.config.activations == "dynamic" and isinstance(weight, Coded)
        return self.add(node, function, arguments, name=name or None, tokens=tokens if reads_tokens else ())
