"""From a prepared network whose activations stay real to a `RealProgram`."""

import warnings

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qat.errors import ConversionError, ProgramError
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths
from qat.inject.undisturbed import undisturbed
from qat.lowering.placement import placed_for_conversion
from qat.lowering.real.walk import Walk
from qat.real.program import RealProgram

#: Signal to noise, in dB, between the program and the eval forward it was made from: float32 rounding leaves more than
#: 100; where codes of tokens are made of rounded sums, some are one off, which is noise of the size of a step.
_LEAST_AGREEMENT = {"float": 80.0, "dynamic": 30.0}


def convert_real(module: nn.Module, handle: Handle) -> RealProgram:
    """The program of a network that was prepared with dynamic or float activations, with the weights it has now.

    Raises `ConversionError` for functions that a real program cannot hold, all of them by name and source line, and
    where the program computes something else than the eval forward.
    """
    with undisturbed(module), placed_for_conversion(module, handle), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.export looks at every attribute, deprecated ones too
        walk = Walk(module, handle)
        _check_agreement(module, handle, walk.program("float32"))
        return walk.program(handle.config.storage)


def _check_agreement(module: nn.Module, handle: Handle, program: RealProgram) -> None:
    """Raise `ConversionError` where the program is another function than the eval forward, on the examples."""
    runs = handle.runs
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    args, kwargs = pytree.tree_map_only(
        Tensor, lambda leaf: leaf.cpu().to(dtype) if leaf.is_floating_point() else leaf.cpu(), handle.examples
    )
    given = dict(input_paths(handle.original_forward, args, kwargs))
    expected = [leaf for leaf in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(leaf, Tensor)]
    handle.runs = runs
    try:
        values = program.run({edge.name: given[edge.name] for edge in program.inputs})
    except ProgramError:
        raise
    except Exception as error:  # torch's functions have many kinds of refusal
        raise ConversionError(f"the program of the network fails ({type(error).__name__}: {error}).") from error
    for edge, wanted in zip(program.outputs, expected, strict=True):
        found, wanted = values[edge.value].double(), wanted.double()
        noise = float((found - wanted).square().sum()) if found.shape == wanted.shape else float("inf")
        least = float(wanted.square().sum()) * 10 ** (-_LEAST_AGREEMENT[program.activations] / 10)
        if noise > least:
            raise ConversionError(
                f"output {edge.name!r} of the program is another function than that of the eval forward (noise of "
                f"{noise:.3g} on a signal of {float(wanted.square().sum()):.3g}); torch.export traces another "
                "computation where code asks what kind of tensor it gets, so compute the same in both."
            )
