"""What a batch of a data loader holds: inputs of a network, of its program, and targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qat.errors import ConfigurationError
from qat.inject.handle import handle_of
from qat.inject.inputs import input_paths
from qat.integer.image_input import network_input
from qat.integer.interpreter import from_edge, named_inputs
from qat.integer.program import Input, IntegerProgram
from qat.integer.reals import dequantize
from qat.real.program import RealProgram

AnyProgram = IntegerProgram | RealProgram


def split_batch(program: AnyProgram, batch: Any, names: Sequence[str] | None = None) -> tuple[Any, Any]:
    """(inputs, targets) of a batch as a data loader gives it; targets are None where there are none.

    names: of the inputs, by default the program's.
    """
    names = names or [edge.name for edge in program.inputs]
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        others = [key for key in batch if key not in names]
        if len(others) > 1 or not set(names) <= set(batch):
            raise ConfigurationError(
                f"a batch has {', '.join(map(str, batch))}; expected {', '.join(names)} and at most one key of targets."
            )
        return {name: batch[name] for name in names}, batch[others[0]] if others else None
    if isinstance(batch, Sequence) and batch:
        if len(batch) == 2 and not isinstance(batch[0], Tensor):
            return batch[0], batch[1]
        if len(batch) in (len(names), len(names) + 1):
            inputs = batch[0] if len(names) == 1 else tuple(batch[: len(names)])
            return inputs, batch[-1] if len(batch) > len(names) else None
    size = f" of {len(batch)} entries" if isinstance(batch, Sequence) else ""
    raise ConfigurationError(
        f"a batch is a {type(batch).__name__}{size}; expected inputs or (inputs, targets), with "
        f"{len(names)} inputs: {', '.join(names)}."
    )


def input_names(program: AnyProgram, module: Callable | None) -> list[str]:
    """What batches hold: the inputs of the prepared module, also those that reach no output and are not the program's.

    Of other modules, and of none, they are the program's.
    """
    names = [edge.name for edge in program.inputs]
    handle = handle_of(module) if isinstance(module, torch.nn.Module) else None
    if handle is None:
        return names
    own = [path for path, _ in input_paths(handle.original_forward, *handle.examples)]
    return own if set(names) < set(own) else names


def taken_by(program: AnyProgram, names: Sequence[str], inputs: Any) -> Any:
    """The inputs that the program takes, of those called `names`; others that are given by name are left out."""
    if len(names) > len(program.inputs) and not isinstance(inputs, Mapping):
        inputs = dict(zip(names, inputs, strict=True))
    own = [edge.name for edge in program.inputs]
    return {name: inputs[name] for name in own} if isinstance(inputs, Mapping) and set(own) <= set(inputs) else inputs


def with_pictures(program: AnyProgram, inputs: Any) -> Any:
    """The inputs as the program takes them: where that is a raw picture, real numbers become the picture they are of.

    Raises `ConfigurationError` for numbers that are of none.
    """
    if all(edge.image is None for edge in program.inputs):
        return inputs
    if isinstance(inputs, Mapping):
        return dict(inputs) | {
            edge.name: _picture(program, edge, inputs[edge.name]) for edge in program.inputs if edge.name in inputs
        }
    if isinstance(inputs, Tensor):
        return _picture(program, program.inputs[0], inputs)
    return tuple(_picture(program, edge, tensor) for edge, tensor in zip(program.inputs, inputs, strict=True))


def _picture(program: IntegerProgram, edge: Input, tensor: Tensor) -> Tensor:
    if edge.image is None or not tensor.is_floating_point():
        return tensor
    return edge.image.pictures(tensor.detach().cpu(), network_input(program, edge).grid)


def real_inputs(program: AnyProgram, inputs: Any) -> Any:
    """The inputs as the network itself takes them: real numbers, also where the program takes codes or pictures."""
    if not any(edge.codes for edge in program.inputs):
        return inputs
    tensors = named_inputs(program, with_pictures(program, inputs))
    real = {edge.name: _real(program, edge, tensors[edge.name]) for edge in program.inputs}
    if isinstance(inputs, Mapping):
        return real
    return next(iter(real.values())) if isinstance(inputs, Tensor) else tuple(real.values())


def _real(program: IntegerProgram, edge: Input, tensor: Tensor) -> Tensor:
    if edge.image is not None:
        return edge.image.normalize(tensor)
    grid = program.value(edge.value).grid
    return dequantize(from_edge(tensor, grid, edge.codes), grid) if edge.codes else tensor
