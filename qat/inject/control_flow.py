"""Branches on values: code that turns a tensor into a Python number may go another way for every input.

So may code whose tensors are as large as values decide.
"""

import traceback
from types import FrameType

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.arguments import has_mask
from qat.inject.calls import Recording
from qat.inject.constant_reads import READING
from qat.inject.operations import Operation
from qat.inject.undisturbed import undisturbed, with_attributes_kept
from qat.targets import Target

#: Operations that give as many entries as values happen to ask for.
_COUNTING = frozenset("nonzero argwhere unique unique_consecutive masked_select bincount".split())
#: Operations that give the contents of a tensor to code without tensors: `x.numpy()`, `numpy.asarray(x)`.
_LEAVING = frozenset({"numpy", "array"})
_READS_A_NUMBER = "reads a number of a tensor that depends on the inputs, to branch on it or to go on with it,"
_LEAVES = "takes a tensor that depends on the inputs out of torch (to NumPy),"
_COUNTS = "makes a tensor whose size depends on the values of the inputs"


def look_at_values(operation: Operation, args: tuple, result) -> str | None:
    """What a call does that no file can do for all inputs, as the predicate of a sentence; None where it does not.

    It gave the network's code a Python value, and what that does next may depend on it; or as many entries as there
    happen to be.
    """
    if operation.name in READING and not isinstance(result, Tensor):
        return _READS_A_NUMBER
    if operation.name in _LEAVING:
        return _LEAVES
    counts = operation.name in _COUNTING or (operation.name == "getitem" and has_mask(args[1]))
    return f"{_COUNTS} ({operation.name})," if counts else None


def refuse_branches(module: nn.Module, recording: Recording, args: tuple, kwargs: dict, target: Target | None) -> None:
    """Raise `PreparationError`, with its line, where the eval forward looks at values that depend on the inputs.

    A number read of token ids or masks may be a shortcut that exporting does not take: that shows in a forward on
    tensors without contents. Without a target any code runs, and a path that was not recorded raises when it is taken.
    """
    if target is None:
        return
    found = next(iter(recording.looks), None)
    if found is None and recording.looks_at_codes:
        found = _branch_without_contents(module, args, kwargs)
    if found is not None:
        raise PreparationError(
            f"{found} and a file for {target.name} has one path for all inputs; compute it with tensors (torch.where, "
            "torch.clamp), quantize a sub-network on one side of it (module=), or train without export (target=None)."
        )


def _branch_without_contents(module: nn.Module, args: tuple, kwargs: dict) -> str | None:
    """The first place that needs the contents of a tensor and what it does there, None if there is no such place."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with undisturbed(module), with_attributes_kept(module), torch.no_grad(), fake as mode:
        args, kwargs = pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
        try:
            module.eval()
            module.forward(*args, **kwargs)
        except DataDependentOutputException as error:
            return f"{_source_of(error)} {_READS_A_NUMBER}"
        except DynamicOutputShapeException as error:
            return f"{_source_of(error)} {_COUNTS},"
        except Exception:  # what else fails without contents, conversion tells
            return None
    return None


def network_frames(error: Exception) -> list[tuple[FrameType, int]]:
    """The frames of an error's traceback in which a network's own code runs, with their lines, the innermost last."""
    return [entry for entry in traceback.walk_tb(error.__traceback__) if addresses.is_network(entry[0])]


def _source_of(error: Exception) -> str:
    frame, line = (network_frames(error) or list(traceback.walk_tb(error.__traceback__))[:1])[-1]
    return f"{frame.f_code.co_filename}:{line}"
