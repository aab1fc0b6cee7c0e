"""Which calls write values in place, and the calls that stand for them, while a network is recorded."""

from collections.abc import Callable

from torch import Tensor, nn

from qat.errors import PreparationError
from qat.inject.followed import memory_of
from qat.inject.operations import Kind, Operation, out_of_place, writes_in_place, written_operand


class OwnMemory:
    """The memory that the parameters and buffers of a network lie in."""

    def __init__(self, module: nn.Module):
        named = (*module.named_parameters(), *module.named_buffers())
        memories = ((memory_of(tensor), name) for name, tensor in named if tensor.numel())
        self.names = {memory: name for memory, name in memories if memory is not None}

    def holds(self, tensor) -> str | None:
        """The name of the parameter or buffer whose memory `tensor` lies in, None where it is no tensor of those."""
        return self.names.get(memory_of(tensor)) if isinstance(tensor, Tensor) else None


def writes_values(operation: Operation, kind: Kind, function: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a call writes real values in place; what only changes flags (requires_grad_) may do so."""
    if not writes_in_place(operation, function, args, kwargs):
        return False
    written = written_operand(args, kwargs)
    moves_only = kind is Kind.PASS and out_of_place(operation, function, args, kwargs) is None
    return not moves_only and (not isinstance(written, Tensor) or written.is_floating_point())


def rewritten(
    operation: Operation, function: Callable, args: tuple, kwargs: dict, place: str, own: str | None
) -> tuple[Callable, tuple, dict]:
    """The function and arguments of a call that writes in place, so that it leaves its operand alone.

    place: where it stands, for errors. own: name of the parameter or buffer that it writes into. Raises
    `PreparationError` where there is one, or no such call.
    """
    followed = out_of_place(operation, function, args, kwargs)
    if followed is None:
        raise PreparationError(
            f"{operation.name} in {place} writes in place, which quantization cannot follow; write the result to a new "
            "tensor instead (torch.cat, torch.where, x = x + y)."
        )
    if own is not None:
        raise PreparationError(
            f"{operation.name} in {place} writes in place into {own}, which quantization cannot follow; change "
            "parameters and buffers outside of forward."
        )
    return followed
