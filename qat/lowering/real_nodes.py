"""What single nodes of a decomposed graph become in a real program, and the program under construction."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from qat.folding import BatchNorm
from qat.functional import rows
from qat.inject.handle import Handle
from qat.lowering import loops
from qat.lowering.state import module_path
from qat.quantizers import FakeQuantize
from qat.real.float16 import rounded_to
from qat.real.functions import FUNCTIONS
from qat.real.nodes import Argument, RealInput, RealNode, RealOutput, Ref, Shape
from qat.real.program import RealProgram
from qat.real.weights import RealWeight

aten = torch.ops.aten

#: Parameters that say nothing about the result on a CPU.
_IGNORED = frozenset("""
    layout device pin_memory memory_format non_blocking generator scale_grad_by_freq sparse cudnn_enable padding_idx
    implicit cudnn_enabled half_to_float
""".split())  # fmt: skip


class Unlisted(Exception):
    """A node has no place in a real program; the message says why and what to do."""


@dataclass(frozen=True)
class Coded:
    """A constant behind its quantizer. transposed: a matrix whose second dimension was the outputs."""

    tensor: Tensor
    quantizer: FakeQuantize
    transposed: bool = False


@dataclass(frozen=True)
class Several:
    """A function of several results, of which nodes take parts."""

    node: Node
    arguments: Mapping[str, Argument]


def dtype_of(value: Tensor) -> str:
    """The type that a program has for a tensor: real numbers are float32."""
    return "float32" if value.dtype.is_floating_point else str(value.dtype).removeprefix("torch.")


def shape_of(value: Tensor, names: Mapping[sympy.Symbol, sympy.Symbol] | None = None) -> Shape:
    """Its sizes; those that follow the inputs as texts. names: of the symbols in them."""
    return tuple(size if isinstance(size, int) else str(size.node.expr.subs(names or {})) for size in value.shape)


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
        self._names_of: dict[int, str] = {}  # of constants, by identity
        self._weights: dict[tuple[str, bool], str] = {}  # (quantizer, transposed) -> name
        self._alive: list[Tensor] = []
        self._folded: dict[str, str] = {}  # layers whose batch norm is in their scales

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
            argument = argument.contiguous() if not argument.is_contiguous() else argument
            return self.constant(argument, name)
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
            codes = rows(quantizer.codes(coded.tensor), axis if not coded.transposed else 1 - axis)
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


def arguments_of(node: Node, args: tuple, kwargs: dict) -> dict[str, object]:
    """The arguments of an ATen function by the names of its schema, but for what does not count."""
    parameters = node.target._schema.arguments
    given = dict(zip((parameter.name for parameter in parameters), args, strict=False)) | kwargs
    arguments = {}
    for parameter in parameters:
        value = given.get(parameter.name, parameter.default_value)
        if parameter.name in _IGNORED:
            continue
        if parameter.name == "dtype":
            if value is not None and not value.is_floating_point:
                raise Unlisted(f"it computes in {value}; convert its input first")
            continue
        arguments[parameter.name] = value
    return arguments


def _same(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """The operand itself: a copy of it."""
    return args[0]


def _cast(builder: Builder, node: Node, args: tuple, kwargs: dict):
    source = node.args[0].meta["val"]
    if dtype_of(source) == dtype_of(node.meta["val"]):
        return args[0]
    return builder.add(node, "cast", {"input": args[0], "dtype": dtype_of(node.meta["val"])})


def _reshape(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A size that stays where it is becomes 0, and one other that follows the inputs -1."""
    before, after = shape_of(node.args[0].meta["val"]), shape_of(node.meta["val"])
    if before == after:
        return args[0]
    sizes = [
        size if isinstance(size, int) else 0 if dim < len(before) and before[dim] == size else None
        for dim, size in enumerate(after)
    ]
    if sizes.count(None) == 1:
        sizes[sizes.index(None)] = -1
    sizes = [args[1][dim] if size is None else size for dim, size in enumerate(sizes)]
    return builder.add(node, "reshape", {"input": args[0], "sizes": tuple(sizes)})


def _expand(builder: Builder, node: Node, args: tuple, kwargs: dict):
    before, after = shape_of(node.args[0].meta["val"]), shape_of(node.meta["val"])
    return args[0] if before == after else builder.add(node, "expand", {"input": args[0], "sizes": tuple(args[1])})


def _arange(builder: Builder, node: Node, args: tuple, kwargs: dict):
    given = arguments_of(node, args, {key: value for key, value in kwargs.items() if key != "dtype"})
    arguments = {"start": given.get("start", 0), "end": given["end"], "step": given.get("step", 1)}
    return builder.add(node, "arange", arguments | {"dtype": dtype_of(node.meta["val"])})


def _full(builder: Builder, node: Node, args: tuple, kwargs: dict):
    dtype = dtype_of(node.meta["val"])
    value = bool(args[1]) if dtype == "bool" else float(args[1]) if dtype == "float32" else int(args[1])
    return builder.add(node, "full", {"sizes": tuple(args[0]), "value": value, "dtype": dtype})


def _full_like(builder: Builder, node: Node, args: tuple, kwargs: dict):
    source = args[0]
    sizes = [
        size if isinstance(size, int) else builder.add(node, "size", {"input": source, "dim": dim}, dtype="size")
        for dim, size in enumerate(shape_of(node.meta["val"]))
    ]
    return _full(builder, node, (sizes, args[1]), {})


def _slice(builder: Builder, node: Node, args: tuple, kwargs: dict):
    given = arguments_of(node, args, kwargs)
    start, end = given["start"], given["end"]
    whole = start in (None, 0) and (end is None or (isinstance(end, int) and end >= 2**62)) and given["step"] == 1
    return given["self"] if whole else builder.plain(node, args, kwargs)


def _index(builder: Builder, node: Node, args: tuple, kwargs: dict):
    return builder.add(node, "index", {"input": args[0], "indices": tuple(args[1])})


def _embedding(builder: Builder, node: Node, args: tuple, kwargs: dict):
    return builder.layer(node, "aten.embedding.default", {"weight": args[0], "indices": args[1]}, ())


def _linear(builder: Builder, node: Node, args: tuple, kwargs: dict):
    given = arguments_of(node, args, kwargs)
    if isinstance(given["input"], Coded | Tensor) or isinstance(given["weight"], Ref):
        raise Unlisted("its weight depends on the inputs; multiply with matmul")
    return builder.layer(node, "linear", given, (-1,))


def _convolution(builder: Builder, node: Node, args: tuple, kwargs: dict):
    given = arguments_of(node, args, kwargs)
    if isinstance(given["weight"], Ref):
        raise Unlisted("its weight depends on the inputs; a convolution multiplies with constants")
    rank = node.meta["val"].dim()
    tokens = () if given["transposed"] else tuple(range(1 - rank, 0))
    return builder.layer(node, "convolution", given, tokens)


def _matmul(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A linear layer where the second factor is a constant matrix."""
    first, second = args
    is_matrix = isinstance(second, Tensor | Coded) and _tensor(second).dim() == 2
    if isinstance(first, Ref) and is_matrix:
        return builder.layer(node, "linear", {"input": first, "weight": _turned(second), "bias": None}, (-1,))
    return builder.add(node, "aten.matmul.default", {"self": first, "other": second})


def _addmm(builder: Builder, node: Node, args: tuple, kwargs: dict):
    bias, first, second = args
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise Unlisted("beta and alpha scale its parts; multiply them outside")
    if isinstance(second, Tensor | Coded) and isinstance(bias, Tensor) and bias.dim() == 1:
        return builder.layer(node, "linear", {"input": first, "weight": _turned(second), "bias": bias}, (-1,))
    product = builder.add(node, "aten.matmul.default", {"self": first, "other": second})
    return builder.add(node, "aten.add.Tensor", {"self": product, "other": bias, "alpha": 1})


def _tensor(constant: Tensor | Coded) -> Tensor:
    return constant.tensor if isinstance(constant, Coded) else constant


def _turned(constant: Tensor | Coded) -> Tensor | Coded:
    if isinstance(constant, Coded):
        return dataclasses.replace(constant, transposed=not constant.transposed)
    return constant.T.contiguous()


def _permute(builder: Builder, node: Node, args: tuple, kwargs: dict):
    if isinstance(args[0], Coded) and list(args[1]) == [1, 0]:
        return _turned(args[0])
    return builder.plain(node, args, kwargs)


def _softmax(builder: Builder, node: Node, args: tuple, kwargs: dict):
    if args[2]:
        raise Unlisted("it widens float16 as it computes; convert its input first")
    return builder.add(node, str(node.target), {"self": args[0], "dim": args[1], "half_to_float": False})


def _batch_norm(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """In eval mode a product and a sum for each channel, of the layer in front where nothing else reads that."""
    source, weight, bias, mean, variance, _, eps = args
    statistics = BatchNorm(mean, variance, weight, bias, eps)
    layer = builder.nodes.get(source.name)
    if len(node.args[0].users) == 1 and layer is not None and _fold(builder, layer, statistics):
        return (source,)
    multiplier, shift = statistics.affine(None)
    shape = (-1, *[1] * (node.meta["val"][0].dim() - 2))
    inner = _Meta(node, node.meta["val"][0])
    scaled = builder.add(inner, "aten.mul.Tensor", {"self": source, "other": multiplier.reshape(shape)})
    return (builder.add(inner, "aten.add.Tensor", {"self": scaled, "other": shift.reshape(shape), "alpha": 1}),)


class _Meta:
    """A node of the graph with another value in the place of its own."""

    def __init__(self, node: Node, value: Tensor):
        self.meta = dict(node.meta) | {"val": value}


def _fold(builder: Builder, layer: RealNode, statistics: BatchNorm) -> bool:
    """Put a batch norm into the layer in front of it; whether that can be."""
    if layer.function not in ("linear", "convolution") or layer.name in builder._folded:
        return False
    if layer.function == "linear" and len(layer.shape) != 2:
        return False
    own = builder.weights.get(layer.weight)
    readers = [node for node in builder.nodes.values() if layer.weight in node.reads]
    bias = layer.named["bias"]
    multiplier, shift = statistics.affine(None if bias is None else builder.constants[bias.name])
    if len(readers) > 1 or (own is not None and own.scale.shape[0] != multiplier.shape[0]):
        return False
    if own is None:
        tensor, transposed = builder.constants[layer.weight], layer.named.get("transposed", False)
        axis = 1 if transposed else 0
        if tensor.shape[axis] != multiplier.shape[0]:
            return False
        shape = [1] * tensor.dim()
        shape[axis] = -1
        builder.constants[layer.weight] = tensor * multiplier.reshape(shape)
    else:
        builder.weights[layer.weight] = dataclasses.replace(own, scale=own.scale * multiplier[:, None])
    folded = builder.constant(shift.contiguous(), f"{layer.name}.bias")
    arguments = tuple((name, folded if name == "bias" else value) for name, value in layer.arguments)
    builder.nodes[layer.name] = dataclasses.replace(layer, arguments=arguments)
    builder._folded[layer.name] = layer.name
    return True


#: What makes something else of a node than the function of its own name.
RULES: dict[Callable, Callable] = {
    **dict.fromkeys(
        (aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
         aten.contiguous.default),
        _same,
    ),
    aten._to_copy.default: _cast,
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.reshape.default), _reshape),
    aten.expand.default: _expand,
    aten.arange.start_step: _arange,
    aten.full.default: _full,
    aten.full_like.default: _full_like,
    aten.slice.Tensor: _slice,
    aten.index.Tensor: _index,
    aten.embedding.default: _embedding,
    aten.linear.default: _linear,
    aten.convolution.default: _convolution,
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), _matmul),
    aten.addmm.default: _addmm,
    aten.permute.default: _permute,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
}  # fmt: skip
