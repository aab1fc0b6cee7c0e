"""Forwards that run on the recorded number of samples alone: told before training, since a file takes any number."""

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qat.errors import PreparationError
from qat.inject.control_flow import network_frames
from qat.inject.inputs import tensors_of
from qat.inject.outputs import named_outputs
from qat.inject.undisturbed import undisturbed, with_attributes_kept
from qat.targets import Target


def refuse_fixed_batch(module: nn.Module, args: tuple, kwargs: dict, target: Target | None) -> None:
    """Raise `PreparationError`, with its line, where the eval forward fails on another number of samples.

    So it does for an output that has another number of entries. The forward runs on one sample less than the examples
    have (of two: on one more). Inputs of which one cannot tell whether their first dimension is the batch are left to
    conversion, and so is a forward that fails on the examples as well.
    """
    given = [tensor for tensor in tensors_of((args, kwargs)) if tensor.dim()]
    sizes = {tensor.shape[0] for tensor in given}
    if target is None or len(sizes) != 1 or len({tensor.dim() == 1 for tensor in given}) != 1:
        return
    (batch,) = sizes
    other = batch - 1 if batch > 2 else batch + 1
    resized = pytree.tree_map_only(Tensor, lambda tensor: _with_samples(tensor, other), (args, kwargs))
    returned, error = _run(module, *resized)
    if error is not None:
        frames = network_frames(error)
        if not frames or _run(module, args, kwargs)[1] is not None:
            return
        frame, line = frames[-1]
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise PreparationError(
            f"{frame.f_code.co_filename}:{line} runs on the {batch} samples of the example inputs and fails on "
            f"{other} ({type(error).__name__}: {reason}), and a file for {target.name} takes batches of any size; "
            "take the size from x.shape[0] wherever it is a number, quantize a sub-network (module=), or train "
            "without export (target=None)."
        ) from error
    for name, leaf in named_outputs(returned)[1]:
        if isinstance(leaf, Tensor) and leaf.shape[:1] != (other,):
            raise PreparationError(
                f"the network returns {name!r} of shape {tuple(leaf.shape)} for {other} samples, and outputs of a file "
                f"for {target.name} have one entry for each in dimension 0; return it so{_as_by(leaf.shape, other)}, "
                "leave it out, or train without export (target=None)."
            )


def _run(module: nn.Module, args: tuple, kwargs: dict):
    """(what the eval forward returns, None), or (None, the error that it raises)."""
    with undisturbed(module), with_attributes_kept(module), torch.no_grad():
        module.eval()
        try:
            return module.forward(*args, **kwargs), None
        except Exception as error:  # of any kind, in the network's own code; the caller says it
            return None, error


def _with_samples(tensor: Tensor, count: int) -> Tensor:
    if not tensor.dim():
        return tensor
    return tensor[:count] if count < tensor.shape[0] else torch.cat([tensor, tensor[: count - tensor.shape[0]]])


def _as_by(shape: torch.Size, samples: int) -> str:
    """What brings the samples into dimension 0, where the shape tells."""
    if samples in shape:
        return f", as by .transpose(0, {list(shape).index(samples)})"
    merged = len(shape) and shape[0] % samples == 0
    return ", as by .unflatten(0, (x.shape[0], -1))" if merged else ""
