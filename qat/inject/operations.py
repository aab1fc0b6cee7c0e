"""What each torch function means to quantization: one table, keyed by the function object.

Eager, compiled and exported code call the same operation through different callables (`torch.add`, `Tensor.add`,
`operator.add`, `Tensor.__iadd__`); the table gives them one name and one kind.
"""

import enum
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from qat.inject import writes


class Kind(enum.Enum):
    """How an operation treats the grids of its operands."""

    IGNORE = "ignore"  # returns no values of the network: shapes, flags, comparisons, fresh constants, losses
    PASS = "pass"  # moves values about; the result lies on the grid of the operand
    JOIN = "join"  # moves values of several tensors into one; all share a grid
    FUSE = "fuse"  # runs inside the integer kernel of the operation before it
    COMPUTE = "compute"  # needs integer operands and makes new values
    CAST = "cast"  # makes real values of integers: ids, masks


#: Normalizations by statistics of the values themselves; weight and bias become multipliers, not codes.
NORMS = frozenset({"layer_norm", "rms_norm", "group_norm", "instance_norm"})

#: Kinds of operations that make new values in a kernel of their own.
COMPUTING = (Kind.COMPUTE, Kind.CAST)


@dataclass(frozen=True)
class Operation:
    """One operation. name: the canonical name. in_place: the callable writes into its first operand.

    out_of_place: the callable of the same operation that leaves its operands alone; None if there is none.
    """

    name: str
    kind: Kind
    in_place: bool = False
    out_of_place: Callable | None = None


_PASS = """
    reshape view view_as reshape_as flatten unflatten squeeze unsqueeze transpose swapaxes swapdims permute movedim
    moveaxis t adjoint contiguous clone detach to type_as type float half bfloat16 double cpu cuda expand expand_as
    broadcast_to narrow select getitem chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split unbind repeat
    tile flip roll ravel alias max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max pad constant_pad_nd
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices
    dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout pixel_shuffle pixel_unshuffle channel_shuffle
    index_select gather requires_grad get as_subclass amin min topk sort repeat_interleave take_along_dim unfold rot90
    fliplr flipud hsplit vsplit dsplit native_channel_shuffle
""".split()
_JOIN = """
    cat concat concatenate stack hstack vstack dstack setitem copy where masked_fill maximum minimum fmax fmin
""".split()
_FUSE = "batch_norm relu relu6 hardtanh clamp clamp_min clamp_max clip".split()
_COMPUTE = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear add sub rsub mul div matmul bmm mm
    addmm baddbmm einsum rdiv rpow mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d neg
    interpolate cumsum
""".split()
_IGNORE = """
    size dim ndimension numel nelement stride storage_offset is_floating_point is_complex is_contiguous element_size
    item tolist len bool int index hash repr str format device get_device data_ptr storage untyped_storage backward
    register_hook retain_grad new_zeros new_ones new_full new_empty new_tensor zeros_like ones_like full_like
    empty_like rand_like randn_like randint_like eq ne lt le gt ge isnan isinf isfinite argmax argmin argsort nonzero
    is_same_size set_ set delete contains iter dir reduce_ex deepcopy is_nonzero is_pinned is_shared has_names allclose
    equal numpy array
""".split()
#: Losses compare what the network computes with targets; a forward that returns its own loss computes that in float.
_LOSS = """
    binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy ctc_loss gaussian_nll_loss
    hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss
    multilabel_soft_margin_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss
    triplet_margin_with_distance_loss
""".split()
_KINDS = {name: kind for kind, names in (
    (Kind.PASS, _PASS), (Kind.JOIN, _JOIN), (Kind.FUSE, _FUSE), (Kind.COMPUTE, _COMPUTE),
    (Kind.IGNORE, _IGNORE), (Kind.IGNORE, _LOSS),
) for name in names}  # fmt: skip
_SYNONYMS = {
    "concat": "cat", "concatenate": "cat", "iconcat": "cat", "clip": "clamp", "subtract": "sub", "multiply": "mul",
    "rtruediv": "rdiv", "log_sigmoid": "logsigmoid", "absolute": "abs", "divide": "div", "true_divide": "div",
    "truediv": "div", "negative": "neg", "floordiv": "floor_divide",
    "special_expit": "sigmoid", "special_erf": "erf", "special_erfc": "erfc", "special_expm1": "expm1",
    "special_exp2": "exp2", "special_log1p": "log1p", "special_softmax": "softmax",
    "special_log_softmax": "log_softmax", "special_sinc": "sinc",
}  # fmt: skip
_NAMESPACES = (torch, torch.Tensor, F, torch._C._nn, operator)

#: What takes the shape or the type of a second tensor, and nothing of its values.
TAKING_A_SHAPE = frozenset("view_as reshape_as expand_as to type_as".split())
#: Conversions to another type, which make real values of a tensor of integers.
CASTS = frozenset("to type type_as float half bfloat16 double".split())

#: Modes of `F.interpolate` that choose entries, and compute nothing.
_CHOOSING_MODES = frozenset({"nearest", "nearest-exact"})

#: Operations whose result cannot be negative, besides clamps from 0.
_NEVER_NEGATIVE = frozenset("sigmoid softmax abs square exp hardsigmoid".split())


def _canonical(name: str) -> tuple[str, bool]:
    """(canonical name, whether the spelling writes in place): `add_`, `__iadd__`, `__radd__` -> `add`."""
    if name == "__float__":
        return "item", False  # gives a number, where the method `float` gives a tensor
    in_place = name.endswith("_") and not name.endswith("__")
    bare = name.strip("_")
    if bare not in _KINDS and bare[1:] in _KINDS and name.startswith("__"):
        in_place = in_place or bare[0] == "i"
        bare = bare[1:]
    return _SYNONYMS.get(bare, bare), in_place


def canonical_name(spelling: str) -> str:
    """The canonical name behind a spelling of it, as of a function of `torch.ops.aten`."""
    return _canonical(spelling)[0]


def _build_table() -> dict[Callable, Operation]:
    table: dict[Callable, Operation] = {}
    for namespace in _NAMESPACES:
        for spelling in dir(namespace):
            name, in_place = _canonical(spelling)
            function = getattr(namespace, spelling, None)
            if name not in _KINDS or not callable(function) or isinstance(function, type):
                continue
            try:
                table.setdefault(function, _operation(name, in_place))
            except TypeError:  # an unhashable callable cannot reach a function mode
                continue
    return table


def _operation(name: str, in_place: bool) -> Operation:
    candidates = (getattr(namespace, name, None) for namespace in (torch.Tensor, torch, F))
    out_of_place = next((function for function in candidates if callable(function)), None)
    return Operation(name, _KINDS.get(name, Kind.COMPUTE), in_place, out_of_place if in_place else None)


_TABLE = _build_table()
_GETTER = Operation("get", Kind.PASS)


def operation_of(function: Callable) -> Operation:
    """The operation behind a callable; one that is not in the table is `COMPUTE`, so that nothing is lost silently."""
    operation = _TABLE.get(function)
    if operation is not None:
        return operation
    spelling = getattr(function, "__name__", type(function).__name__)
    if spelling in ("__get__", "__set__", "__delete__"):
        return _GETTER
    name, in_place = _canonical(spelling)
    operation = _operation(name, in_place)
    _TABLE[function] = operation
    return operation


def kind_of(operation: Operation, args: tuple, kwargs: dict) -> Kind:
    """The kind, where it depends on the arguments: padding with a constant that is not zero makes new values."""
    if operation.name in ("pad", "constant_pad_nd"):
        value = kwargs.get("value", args[3] if operation.name == "pad" and len(args) > 3 else None)
        if operation.name == "constant_pad_nd" and len(args) > 2:
            value = args[2]
        return Kind.PASS if not value else Kind.COMPUTE
    if operation.name in CASTS and not first_operand(args, kwargs).is_floating_point():
        return Kind.CAST if _makes_real(operation, args, kwargs) else Kind.PASS
    if operation.name in ("max", "min"):
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return Kind.JOIN if isinstance(other, torch.Tensor) else Kind.PASS
    if operation.name == "interpolate":
        mode = args[3] if len(args) > 3 else kwargs.get("mode", "nearest")
        return Kind.PASS if mode in _CHOOSING_MODES else Kind.COMPUTE
    if operation.kind is Kind.FUSE and operation.name.startswith("clamp"):
        bounds = (*args[1:], *kwargs.values())
        return Kind.COMPUTE if any(isinstance(bound, torch.Tensor) for bound in bounds) else Kind.FUSE
    return operation.kind


def _makes_real(operation: Operation, args: tuple, kwargs: dict) -> bool:
    """Whether a conversion of integers gives real numbers."""
    if operation.name not in ("to", "type_as"):
        return True  # named after what it gives
    for argument in (*args[1:], *kwargs.values()):
        dtype = argument.dtype if isinstance(argument, torch.Tensor) else argument
        if isinstance(dtype, torch.dtype):
            return dtype.is_floating_point
    return False


def first_operand(args: tuple, kwargs: dict):
    """The tensor that a call works on, however it was passed."""
    return args[0] if args else kwargs.get("input")


def written_operand(args: tuple, kwargs: dict):
    """The tensor that a call writes into: `out=`, else its first operand."""
    out = kwargs.get("out")
    return first_operand(args, kwargs) if out is None else out


def bounds_of(operation: Operation, args: tuple, kwargs: dict) -> tuple[float, float] | None:
    """(low, high) of an activation that is a clamp, None for any other operation."""
    if operation.name == "relu":
        return 0.0, math.inf
    if operation.name == "relu6":
        return 0.0, 6.0
    names = {
        "hardtanh": ("min_val", "max_val"),
        "clamp": ("min", "max"),
        "clamp_min": ("min", None),
        "clamp_max": (None, "max"),
    }
    if operation.name not in names:
        return None
    positional = list(args[1:])
    bounds = {"hardtanh": (-1.0, 1.0)}.get(operation.name, (None, None))
    low, high = (
        kwargs.get(name, positional.pop(0) if positional and name is not None else bound)
        for name, bound in zip(names[operation.name], bounds, strict=True)
    )
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def factor_of(operation: Operation, args: tuple, kwargs: dict) -> float | None:
    """The positive number that a call multiplies its one tensor with; None for any other call."""
    if operation.name not in ("mul", "div") or kwargs.get("rounding_mode") is not None:
        return None
    operands = (*args, *kwargs.values())
    numbers = [operand for operand in operands if isinstance(operand, int | float) and not isinstance(operand, bool)]
    if len(operands) != 2 or len(numbers) != 1 or not numbers[0] > 0:
        return None
    return float(numbers[0]) if operation.name == "mul" else 1 / float(numbers[0])


def is_square(operation: Operation, args: tuple, kwargs: dict) -> bool:
    """Whether a call multiplies a tensor by itself."""
    operands = (*args, *kwargs.values())
    if operation.name == "pow":
        return len(operands) == 2 and not isinstance(operands[1], torch.Tensor) and operands[1] == 2
    return operation.name == "square" or (operation.name == "mul" and operands[0] is operands[-1])


def averages_last(operation: Operation, args: tuple, kwargs: dict) -> bool:
    """Whether a call is a mean over the last dimension or dimensions, which stay with size 1."""
    if operation.name != "mean" or kwargs.get("dtype") is not None:
        return False
    given = dict(zip(("input", "dim", "keepdim"), args, strict=False)) | kwargs
    dims = given.get("dim")
    if dims is None or not given.get("keepdim"):
        return False
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    rank = first_operand(args, kwargs).dim()
    return sorted(dim % rank for dim in dims) == list(range(rank - len(dims), rank))


def never_negative(operation: Operation, args: tuple, kwargs: dict) -> bool:
    """Whether the result cannot be negative, whatever the operands are."""
    bounds = bounds_of(operation, args, kwargs) if operation.kind is Kind.FUSE else None
    if bounds is not None:
        return bounds[0] >= 0
    return operation.name in _NEVER_NEGATIVE


def out_of_place(
    operation: Operation, function: Callable, args: tuple, kwargs: dict
) -> tuple[Callable, tuple, dict] | None:
    """A call that writes in place, rewritten to leave its operands alone: (function, args, kwargs), or None."""
    if kwargs.get("out") is not None:
        return function, args, {name: value for name, value in kwargs.items() if name != "out"}
    if operation.name == "copy":
        return writes.copied, (args[1], *writes.likeness(args[0])), {}
    if operation.name == "setitem":
        followed = writes.as_function(args)
        return None if followed is None else (writes.with_value_at, followed, {})
    position = _inplace_position(function)
    if position is not None:
        return function, args[:position], {**kwargs, "inplace": False}
    return (operation.out_of_place, args, kwargs) if operation.out_of_place else None


def writes_in_place(operation: Operation, function: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether this call changes its first operand."""
    if operation.in_place or operation.name == "setitem" or kwargs.get("out") is not None:
        return True
    if kwargs.get("inplace"):
        return True
    position = _inplace_position(function)
    return position is not None and len(args) > position and args[position] is True


_INPLACE_POSITIONS: dict[Callable, int | None] = {}


def _inplace_position(function: Callable) -> int | None:
    """Where `inplace` stands among the positional parameters of a function of torch.nn.functional."""
    if function not in _INPLACE_POSITIONS:
        code = getattr(function, "__code__", None)
        names = code.co_varnames[: code.co_argcount] if code else ()
        _INPLACE_POSITIONS[function] = names.index("inplace") if "inplace" in names else None
    return _INPLACE_POSITIONS[function]
