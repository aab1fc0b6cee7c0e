"""Branches on values: code that turns a tensor into a Python number may go another way for every input."""

import contextlib
import traceback

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree as pytree

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.calls import Recording
from qat.inject.operations import Operation
from qat.inject.undisturbed import undisturbed
from qat.targets import Target

#: Operations that give a Python number or list for a tensor.
_READING = frozenset("item bool int index tolist is_nonzero equal allclose contains".split())


def reads_a_number(operation: Operation, result) -> bool:
    """Whether a call gave the network's code a Python value: what it does next may depend on that."""
    return operation.name in _READING and not isinstance(result, Tensor)


def refuse_branches(module: nn.Module, recording: Recording, args: tuple, kwargs: dict, target: Target | None) -> None:
    """Raise `PreparationError`, with its line, where the eval forward reads values that depend on the inputs.

    A number read of token ids or masks may be a shortcut that exporting does not take: that shows in a forward on
    tensors without contents. Without a target any code runs, and a path that was not recorded raises when it is taken.
    """
    if target is None:
        return
    for source in recording.reads:
        raise _refusal(source, target)
    if recording.reads_codes:
        source = _branch_without_contents(module, args, kwargs)
        if source is not None:
            raise _refusal(source, target)


def _refusal(source: str, target: Target) -> PreparationError:
    return PreparationError(
        f"{source} reads a number of a tensor that depends on the inputs, to branch on it or to go on with it, and a "
        f"file for {target.name} has one path for all inputs; compute it with tensors (torch.where, torch.clamp), "
        "quantize a sub-network on one side of it (module=), or train without export (target=None)."
    )


def _branch_without_contents(module: nn.Module, args: tuple, kwargs: dict) -> str | None:
    """Source line of the first branch that needs the contents of a tensor, None if there is no such branch."""
    attributes = [(part, dict(part.__dict__)) for part in module.modules()]
    with undisturbed(module), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        args, kwargs = pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
        try:
            module.eval()
            module.forward(*args, **kwargs)
        except DataDependentOutputException as error:
            return _source_of(error)
        except Exception:  # what else fails without contents, conversion tells
            return None
        finally:
            for part, own in attributes:  # a network may keep tensors of its last forward
                with contextlib.suppress(AttributeError):
                    part.__dict__.update(own)
    return None


def _source_of(error: Exception) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    inner, line = next((entry for entry in reversed(frames) if not addresses.is_torch(entry[0])), frames[0])
    return f"{inner.f_code.co_filename}:{line}"
