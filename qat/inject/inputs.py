"""The inputs of a network: examples to record it with, the name of every tensor in them, and how to reach one."""

import dataclasses
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qat.errors import AddressError, PreparationError


def bind_examples(module: nn.Module, example_inputs) -> tuple[tuple, dict]:
    """`example_inputs` (a tensor, a tuple of positional or a dict of keyword arguments) as (args, kwargs).

    A batch of one is repeated, so that batch norm can train on it and the batch dimension can be told from a constant.
    """
    if isinstance(example_inputs, dict):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, tuple | list):
        args, kwargs = tuple(example_inputs), {}
    else:
        args, kwargs = (example_inputs,), {}
    register_dataclasses((args, kwargs))
    tensors = tensors_of((args, kwargs))
    if not tensors:
        raise PreparationError(
            f"example_inputs hold no tensor but {type(example_inputs).__name__}; pass one batch of inputs."
        )
    _check_binds(module, args, kwargs)
    for path, tensor in input_paths(module.forward, args, kwargs):
        if not _is_dense(tensor) or tensor.is_complex() or tensor.is_quantized:
            raise PreparationError(
                f"the example input {path} is {in_words(tensor)}, and integers need dense real tensors; pass it as "
                "one, or quantize a part of the network that gets such (module=)."
            )
        if tensor.dim() and not tensor.shape[0]:
            raise PreparationError(
                f"the example input {path} has shape {tuple(tensor.shape)}, an empty batch; pass at least one sample."
            )
    if all(tensor.dim() == 0 or tensor.shape[0] == 1 for tensor in tensors):
        args, kwargs = pytree.tree_map(_repeat_batch, (args, kwargs))
    return _all_distinct(args, kwargs)


def _check_binds(module: nn.Module, args: tuple, kwargs: dict) -> None:
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise PreparationError(
            f"example_inputs do not fit {type(module).__name__}.forward{signature}: {error}; pass a tensor, a tuple of "
            "positional or a dict of keyword arguments."
        ) from error


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def tensors_of(structure) -> list[Tensor]:
    """Every tensor in nested tuples, lists, dicts and registered dataclasses."""
    return [leaf for leaf in pytree.tree_leaves(structure) if isinstance(leaf, Tensor)]


def register_dataclasses(structure) -> None:
    """Let torch see the tensors in dataclasses that a network takes or returns, however deep they are nested."""
    found = True
    while found:
        leaves = pytree.tree_leaves(structure)
        found = {type(leaf) for leaf in leaves if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)}
        for kind in found:
            pytree.register_dataclass(kind)


def _repeat_batch(leaf):
    return leaf.repeat(2, *[1] * (leaf.dim() - 1)) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _all_distinct(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The same examples, where one tensor stands in two places as two: values are told apart by identity."""
    seen = set()

    def distinct(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in seen:
            leaf = leaf.clone()
        seen.add(id(leaf))
        return leaf

    return pytree.tree_map(distinct, (args, kwargs))


def input_paths(forward: Callable, args: tuple, kwargs: dict) -> list[tuple[str, Tensor]]:
    """Every tensor among the inputs with its name: the argument's, with the place inside where it is a structure.

    forward: the network's own, whose parameters give the names. Raises `AddressError` where it does not take these.
    """
    signature = inspect.signature(forward)
    try:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        owner = type(getattr(forward, "__self__", None)).__name__
        raise AddressError(
            f"the inputs do not fit {owner}.forward{signature}: {error}; pass them as they were recorded."
        ) from error
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    named = []
    for path, leaf in pytree.tree_flatten_with_path(arguments)[0]:
        if isinstance(leaf, Tensor):
            named.append((".".join(str(key_of(step)) for step in path), leaf))
    return named


def key_of(step):
    """The key, index or field of one step of a pytree's path."""
    return getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))


def positional_names(forward: Callable) -> tuple[str, ...]:
    """Names of the positional parameters of a bound forward."""
    return tuple(
        name for name, parameter in inspect.signature(forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )  # fmt: skip


def _tensors(args: tuple, kwargs: dict) -> list[Tensor]:
    leaves = [*args, *kwargs.values()]
    return leaves if all(isinstance(leaf, Tensor) for leaf in leaves) else tensors_of((args, kwargs))


def kinds_of(args: tuple, kwargs: dict) -> tuple[list[tuple], tuple[str, ...]]:
    """What tells inputs of one kind from others, quickly.

    Of every tensor among them its rank, whether it holds real numbers and its layout; the names of keyword arguments.
    """
    return [(leaf.dim(), leaf.is_floating_point(), leaf.layout) for leaf in _tensors(args, kwargs)], tuple(kwargs)


def check_kinds(forward: Callable, examples: tuple[tuple, dict], args: tuple, kwargs: dict) -> None:
    """Raise `AddressError` for an input that was not recorded, or of another rank or kind of numbers or layout."""
    recorded = dict(input_paths(forward, *examples))
    for path, given in input_paths(forward, args, kwargs):
        example = recorded.get(path)
        if example is None:
            if given.is_floating_point():
                raise AddressError(
                    f"the input {path}, {in_words(given)}, was not there when the network was recorded, so it would "
                    "pass unquantized; prepare again with example_inputs that hold it."
                )
        elif kinds_of((given,), {}) != kinds_of((example,), {}):
            raise AddressError(
                f"the input {path} is {in_words(given)} and was recorded as {in_words(example)}; pass it dense, with "
                f"{example.dim()} dimensions of {'real numbers' if example.is_floating_point() else 'integers'} as "
                "recorded, or prepare again with example_inputs that are as this one."
            )


def explain_failure(forward: Callable, examples: tuple[tuple, dict], args: tuple, kwargs: dict, error: Exception):
    """Raise `AddressError` from an error of the network itself, where an input has another size or type than before."""
    recorded = dict(input_paths(forward, *examples))
    for path, given in input_paths(forward, args, kwargs):
        example = recorded.get(path, given)
        if given.shape[1:] != example.shape[1:] or given.dtype != example.dtype:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
            raise AddressError(
                f"the network fails on {path}, {in_words(given)} ({type(error).__name__}: {reason}); it was recorded "
                f"with {in_words(example)}: pass that type, in that size behind the batch, or prepare again with such "
                "example_inputs as are needed."
            ) from error


def in_words(tensor: Tensor) -> str:
    """The dtype, the shape and an unusual layout of a tensor, for errors."""
    if tensor.is_nested:
        return f"a nested tensor of {_bare(tensor.dtype)}"
    layout = "" if tensor.layout is torch.strided else f" ({_bare(tensor.layout)})"
    return f"{_bare(tensor.dtype)} of shape {tuple(tensor.shape)}{layout}"


def _bare(name) -> str:
    """A dtype or a layout without the name of torch."""
    return str(name).removeprefix("torch.")


def map_input(args: tuple, kwargs: dict, path: str, names: tuple[str, ...], function: Callable) -> tuple[tuple, dict]:
    """The inputs with `function` applied to the tensor at `path`; inputs that were not passed are left out.

    names: of the positional parameters.
    """
    for name in kwargs:
        if _leads_to(name, path):
            return args, {**kwargs, name: _map_at(kwargs[name], _behind(name, path), function)}
    head, _, rest = path.partition(".")
    if head in names:
        index = names.index(head)
    else:  # *args: the path goes on with the index
        position, _, rest = rest.partition(".")
        index = len(names) + int(position)
    if index >= len(args):
        return args, kwargs
    return (*args[:index], _map_at(args[index], rest, function), *args[index + 1 :]), kwargs


def _leads_to(key: str, path: str) -> bool:
    """Whether `path` is at `key` or inside of it; keys may hold dots themselves."""
    return path == key or path.startswith(f"{key}.")


def _behind(key: str, path: str) -> str:
    return path[len(key) + 1 :]


def _map_at(value, path: str, function: Callable):
    if not path:
        return function(value) if isinstance(value, Tensor) else value
    if isinstance(value, dict):
        changed = {
            key: _map_at(entry, _behind(str(key), path), function)
            for key, entry in value.items() if _leads_to(str(key), path)
        }  # fmt: skip
        return type(value)({**value, **changed})
    head, _, rest = path.partition(".")
    if hasattr(value, "_fields"):  # a named tuple
        return value._replace(**{head: _map_at(getattr(value, head), rest, function)})
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{head: _map_at(getattr(value, head), rest, function)})
    entries = [_map_at(entry, rest, function) if str(index) == head else entry for index, entry in enumerate(value)]
    return type(value)(entries)
