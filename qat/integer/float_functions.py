"""The functions that a float island may hold: an explicit list, each with its tensors, its arguments, and what it is.

They are computed in float64 and rounded to float32 once, so that neither the size of the batch nor the order in which
a device adds shows in the result: a runtime's own float32 function is that, to the last bits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: What arguments are, by a letter: a whole number, a real one, a flag, a text, whole numbers (or a single one).
KINDS = {"i": int, "r": float, "b": bool, "t": str, "s": tuple}
#: The epsilon of an RMS norm that is given none.
FLOAT32_EPSILON = torch.finfo(torch.float32).eps
Argument = int | float | bool | str | tuple[int, ...]


@dataclass(frozen=True)
class FloatFunction:
    """One function. run: of tensors and arguments by name.

    tensors: names of its operands, those that it cannot go without first. required: how many these are. constants:
    operands that cannot depend on the network's inputs. arguments: the other parameters, name -> letters of `KINDS`.
    needed: arguments without which it would work on the batch as well. dims: arguments that name dimensions.
    may_be_nan: whether finite operands can give NaN, which counts as 0.
    refuse: why it cannot have these arguments, None where it can.
    """

    run: Callable[..., Tensor]
    tensors: tuple[str, ...]
    required: int
    constants: frozenset[str]
    arguments: Mapping[str, str]
    needed: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    may_be_nan: bool = False
    refuse: Callable[[Mapping[str, Argument]], str | None] | None = None

    def compute(self, tensors: Mapping[str, Tensor], arguments: Mapping[str, Argument]) -> Tensor:
        """The result, float32, of real operands by name; NaN as 0."""
        result = self.run(**{name: tensor.double() for name, tensor in tensors.items()}, **arguments).float()
        return torch.nan_to_num_(result, nan=0.0, posinf=math.inf, neginf=-math.inf) if self.may_be_nan else result

    def problem(self, tensors: Mapping[str, int], arguments: Mapping[str, Argument]) -> str | None:
        """What is wrong with a call, None if nothing is. tensors: ranks of its operands by name, the batch counted."""
        unknown = sorted({*tensors} - {*self.tensors}) + sorted({*arguments} - {*self.arguments})
        if unknown:
            return f"it has {unknown[0]!r}; it takes {', '.join((*self.tensors, *self.arguments))}"
        missing = [name for name in (*self.tensors[: self.required], *self.needed)
                   if name not in tensors and name not in arguments]  # fmt: skip
        if missing:
            return (
                f"name its {missing[0]}, since it must not work on the batch"
                if missing[0] in self.needed
                else (f"its {missing[0]} is missing")
            )
        for name, value in arguments.items():
            kinds = [KINDS[letter] for letter in self.arguments[name]]
            whole = not isinstance(value, tuple) or all(type(entry) is int for entry in value)
            if type(value) not in kinds or not whole or (isinstance(value, float) and not math.isfinite(value)):
                return f"its {name} is {str(value)[:40]}, not {' or '.join(kind.__name__ for kind in kinds)}"
        rank = max(tensors.values())
        for name in self.dims:
            named = arguments.get(name, ())
            for dim in named if isinstance(named, tuple) else (named,):
                if not -rank <= dim < rank:
                    return f"its {name} is {dim} of {rank} dimensions"
                if dim % rank == 0:
                    return "it works on the batch; keep dimension 0 for the batch alone"
        return self.refuse(arguments) if self.refuse else None


def _function(run, tensors: str, arguments: str = "", needed: str = "", dims: str = "", **settings) -> FloatFunction:
    """tensors: names, with a `?` those it can go without, with a `!` constants. arguments: `name:letters`."""
    names = [name.rstrip("?!") for name in tensors.split()]
    return FloatFunction(
        run=run,
        tensors=tuple(names),
        required=sum("?" not in name for name in tensors.split()),
        constants=frozenset(name.rstrip("?!") for name in tensors.split() if "!" in name),
        arguments=dict(entry.split(":") for entry in arguments.split()),
        needed=tuple(needed.split()),
        dims=tuple(dims.split()),
        **settings,
    )


def _softmax(input: Tensor, dim: int, mask: Tensor | None = None) -> Tensor:
    """mask: 1 where a score takes part; a row of which nothing does is 0."""
    if mask is None:
        return torch.softmax(input, dim)
    return torch.nan_to_num(torch.softmax(input.masked_fill(mask == 0, -math.inf), dim), nan=0.0)


def _batch_norm(input, running_mean, running_var, weight=None, bias=None, eps=1e-5) -> Tensor:
    return F.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)


def _instance_norm(input, weight=None, bias=None, eps=1e-5) -> Tensor:
    return F.instance_norm(input, weight=weight, bias=bias, eps=eps)


def _rms_norm(input, normalized_shape, weight=None, eps=FLOAT32_EPSILON) -> Tensor:
    return F.rms_norm(input, normalized_shape, weight, eps)


def _bilinear(input1, input2, weight, bias=None) -> Tensor:
    return F.bilinear(input1, input2, weight, bias)


def _vector_norm(input, ord=2.0, dim=(), keepdim=False) -> Tensor:
    return torch.linalg.vector_norm(input, ord, dim, keepdim)


def _matrix_norm(input, ord="fro", dim=(-2, -1), keepdim=False) -> Tensor:
    return torch.linalg.matrix_norm(input, ord, dim, keepdim)


def _cdist(x1, x2, p=2.0) -> Tensor:
    return torch.cdist(x1, x2, p, compute_mode="donot_use_mm_for_euclid_dist")


def _grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False) -> Tensor:
    return F.grid_sample(input, grid, mode, padding_mode, align_corners)


def _binary(function) -> Callable[..., Tensor]:
    return lambda input, other: function(input, other)


def _unary(function) -> Callable[..., Tensor]:
    return lambda input: function(input)


def _refuse_order(name: str) -> Callable[[Mapping[str, Argument]], str | None]:
    def refuse(arguments) -> str | None:
        order = arguments.get(name, 2.0)
        return None if order > 0 else f"its {name} is {order}; take a positive one"

    return refuse


def _refuse_matrix_order(arguments) -> str | None:
    order = arguments.get("ord", "fro")
    return None if order == "fro" else f"its ord is {order!r}; use 'fro'"


def _refuse_sampling(arguments) -> str | None:
    if arguments.get("mode", "bilinear") not in ("bilinear", "bicubic"):
        return f"its mode is {arguments['mode']!r}, which rounds places; use bilinear or bicubic"
    if arguments.get("padding_mode", "zeros") not in ("zeros", "border", "reflection"):
        return f"its padding_mode is {arguments['padding_mode']!r}; use zeros, border or reflection"
    return None


def _refuse_padding(arguments) -> str | None:
    padding = arguments.get("padding", 0)
    return None if padding in ("same", "valid") or not isinstance(padding, str) else f"its padding is {padding!r}"


def _refuse_gelu(arguments) -> str | None:
    form = arguments.get("approximate", "none")
    return None if form in ("none", "tanh") else f"its approximate is {form!r}; use none or tanh"


def _refuse_softplus(arguments) -> str | None:
    given = arguments.get("beta", 1.0), arguments.get("threshold", 20.0)
    return None if given == (1.0, 20.0) else f"its beta and threshold are {given[0]} and {given[1]}; use 1 and 20"


_CONVOLUTION = "stride:is padding:ist dilation:is groups:i"
_TRANSPOSED = "stride:is padding:is output_padding:is groups:i dilation:is"
_LAYER = "input weight! bias?!"
_REDUCED = {"arguments": "dim:is keepdim:b", "needed": "dim", "dims": "dim"}

#: Every function that a program may name, and a file.
FLOAT_FUNCTIONS: dict[str, FloatFunction] = {
    "linear": _function(F.linear, _LAYER),
    **{
        f"conv{n}d": _function(getattr(F, f"conv{n}d"), _LAYER, _CONVOLUTION, refuse=_refuse_padding) for n in (1, 2, 3)
    },
    **{
        f"conv_transpose{n}d": _function(getattr(F, f"conv_transpose{n}d"), _LAYER, _TRANSPOSED) for n in (1, 2, 3)
    },
    "bilinear": _function(_bilinear, "input1 input2 weight! bias?!"),
    **dict.fromkeys(("matmul", "bmm", "mm"), _function(_binary(torch.matmul), "input other")),
    "layer_norm": _function(F.layer_norm, "input weight?! bias?!", "normalized_shape:s eps:r", "normalized_shape"),
    "rms_norm": _function(_rms_norm, "input weight?!", "normalized_shape:s eps:r", "normalized_shape"),
    "group_norm": _function(F.group_norm, "input weight?! bias?!", "num_groups:i eps:r", "num_groups"),
    "instance_norm": _function(_instance_norm, "input weight?! bias?!", "eps:r"),
    "batch_norm": _function(_batch_norm, "input running_mean! running_var! weight?! bias?!", "eps:r"),
    "softmax": _function(_softmax, "input mask?", "dim:i", "dim", "dim"),
    "log_softmax": _function(F.log_softmax, "input", "dim:i", "dim", "dim"),
    **{
        name: _function(_unary(function), "input")
        for name, function in {
            "relu": torch.relu, "relu6": F.relu6, "silu": F.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
            "exp": torch.exp, "square": torch.square, "abs": torch.abs, "neg": torch.neg, "sin": torch.sin,
            "cos": torch.cos, "erf": torch.erf, "mish": F.mish, "hardswish": F.hardswish,
            "hardsigmoid": F.hardsigmoid, "reciprocal": torch.reciprocal,
        }.items()
    },
    **{
        name: _function(_unary(function), "input", may_be_nan=True)
        for name, function in {"log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt}.items()
    },
    "gelu": _function(F.gelu, "input", "approximate:t", refuse=_refuse_gelu),
    "elu": _function(F.elu, "input", "alpha:r"),
    "leaky_relu": _function(F.leaky_relu, "input", "negative_slope:r"),
    "softplus": _function(F.softplus, "input", "beta:r threshold:r", refuse=_refuse_softplus),
    "hardtanh": _function(F.hardtanh, "input", "min_val:r max_val:r"),
    "clamp": _function(torch.clamp, "input", "min:r max:r"),
    **{name: _function(_binary(getattr(torch, name)), "input other") for name in ("add", "sub", "mul", "hypot")},
    "rsub": _function(lambda input, other: other - input, "input other"),
    "div": _function(_binary(torch.div), "input other!", may_be_nan=True),
    "logaddexp": _function(_binary(torch.logaddexp), "input other"),
    "atan2": _function(_binary(torch.atan2), "input other"),
    "pow": _function(_binary(torch.pow), "input other", may_be_nan=True),
    "xlogy": _function(_binary(torch.xlogy), "input other", may_be_nan=True),
    "cumsum": _function(torch.cumsum, "input", "dim:i", "dim", "dim"),
    "prod": _function(torch.prod, "input", "dim:i keepdim:b", "dim", "dim"),
    "sum": _function(torch.sum, "input", **_REDUCED),
    "mean": _function(torch.mean, "input", **_REDUCED),
    "logsumexp": _function(torch.logsumexp, "input", **_REDUCED),
    **dict.fromkeys(
        ("norm", "linalg_vector_norm"),
        _function(_vector_norm, "input", "ord:r dim:is keepdim:b", "dim", "dim", refuse=_refuse_order("ord")),
    ),
    "linalg_matrix_norm": _function(
        _matrix_norm, "input", "ord:t dim:s keepdim:b", dims="dim", refuse=_refuse_matrix_order
    ),
    "cdist": _function(_cdist, "x1 x2", "p:r", refuse=_refuse_order("p")),
    "cross": _function(torch.linalg.cross, "input other", "dim:i", "dim", "dim"),
    "linalg_cross": _function(torch.linalg.cross, "input other", "dim:i", dims="dim"),
    "linalg_vecdot": _function(
        lambda x, y, dim=-1: torch.linalg.vecdot(x, y, dim=dim), "x y", "dim:i", dims="dim"
    ),
    **dict.fromkeys(("det", "linalg_det"), _function(_unary(torch.linalg.det), "input")),
    "fold": _function(
        F.fold, "input", "output_size:is kernel_size:is dilation:is padding:is stride:is", "output_size kernel_size"
    ),
    "grid_sample": _function(
        _grid_sample, "input grid", "mode:t padding_mode:t align_corners:b",
        refuse=_refuse_sampling,
    ),
}  # fmt: skip
