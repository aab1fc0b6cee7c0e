"""The graph of a prepared network's eval forward, by `torch.export`, for batches of any size and inputs of any length.

Which dimensions are lengths is found by trying: those of integer inputs (token ids, masks) and of real inputs with
three dimensions, (N, L, features) or (N, channels, L). A dimension that the network computes with at one size only, as
the features of a linear layer, comes out of the export with that size.
"""

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import sympy
import torch
import torch.fx.experimental._config as shape_config
from torch import Tensor, nn
from torch.export import Dim, _trace
from torch.fx.proxy import TracerBase
from torch.utils import _pytree as pytree

from qat.errors import ConversionError, QATError
from qat.inject.control_flow import network_frames
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths
from qat.integer.lengths import Length
from qat.lowering.constants_read import answering_reads
from qat.lowering.lengths import LENGTHS
from qat.tracing import unseen_by_the_network

#: Where torch's own code lies.
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Exported:
    """program: what torch.export made. lengths: of the inputs, by the symbols of its shapes."""

    program: torch.export.ExportedProgram
    lengths: Mapping[sympy.Symbol, Length]


class _FlatInputs(nn.Module):
    """The network as a function of its input tensors alone, in order, however nested or named they are."""

    def __init__(self, network: nn.Module, args: tuple, kwargs: dict):
        super().__init__()
        self.network = network
        self.leaves, self.structure = pytree.tree_flatten((args, kwargs))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The example tensors."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors):
        """Put the tensors back in their places, and run the network as its eval forward runs."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        with unseen_by_the_network():
            return self.network(*args, **kwargs)


def export(module: nn.Module, handle: Handle, any_length: bool) -> Exported:
    """The exported graph. any_length: whether lengths of inputs are symbols as well, as the batch always is."""
    dtype = next((entry.dtype for entry in module.parameters() if entry.is_floating_point()), torch.float32)

    def fitting(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to("cpu", dtype) if leaf.is_floating_point() else leaf.cpu()

    args, kwargs = pytree.tree_map(fitting, handle.examples)
    flat = _FlatInputs(module, args, kwargs)
    followed = [_lengths_of(tensor) if any_length else () for tensor in flat.tensors]
    dims = tuple(
        dict.fromkeys((0, *lengths), Dim.AUTO) if tensor.dim() else None
        for tensor, lengths in zip(flat.tensors, followed, strict=True)
    )
    answers = answering_reads(module, handle, (args, kwargs))
    # Two sizes that happen to be equal in the examples are one symbol only where the network computes so.
    with torch.no_grad(), _quiet_export(module), _apart(any(followed)), _with_lines(), answers:
        program = torch.export.export(flat, flat.tensors, dynamic_shapes=(dims,), strict=False)
    program.graph.eliminate_dead_code()  # what reaches no output has no quantizer behind it
    paths = {id(leaf): path for path, leaf in input_paths(handle.original_forward, args, kwargs)}
    lengths = _named(program, [paths[id(tensor)] for tensor in flat.tensors]) if any(followed) else {}
    program.graph_module.meta[LENGTHS] = lengths
    return Exported(program, lengths)


def _lengths_of(tensor: Tensor) -> tuple[int, ...]:
    """Dimensions of an input that may be lengths."""
    if tensor.dim() != 3 if tensor.is_floating_point() else tensor.dim() < 2:
        return ()
    return tuple(dim for dim in range(1, tensor.dim()) if tensor.shape[dim] > 1)


def _named(program: torch.export.ExportedProgram, paths: list[str]) -> dict[sympy.Symbol, Length]:
    """The lengths that are symbols, called after the input that has them first; a single one just "length"."""
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[sympy.Symbol, tuple[str, int]] = {}
    batch = {_symbol(nodes[name].meta["val"].shape[0]) for name in names if nodes[name].meta["val"].dim()}
    for name, path in zip(names, paths, strict=True):
        if not nodes[name].users:  # the program does not take it
            continue
        for dim, size in enumerate(nodes[name].meta["val"].shape):
            symbol = _symbol(size)
            if dim and symbol is not None and symbol not in found and symbol not in batch:
                found[symbol] = f"{path}_{dim}", size.node.hint
    single = len(found) == 1
    return {
        symbol: Length("length" if single else "length_of_" + "".join(c if c.isalnum() else "_" for c in name), hint)
        for symbol, (name, hint) in found.items()
    }


def _symbol(size) -> sympy.Symbol | None:
    return None if isinstance(size, int) or not size.node.expr.is_Symbol else size.node.expr


def _apart(wanted: bool) -> contextlib.AbstractContextManager:
    """Where wanted, sizes that are equal in the examples get symbols of their own, inside."""
    return shape_config.patch(use_duck_shape=False) if wanted else contextlib.nullcontext()


@contextlib.contextmanager
def _with_lines() -> Iterator[None]:
    """Nodes made inside know every line of the network that they come from, not only those of methods named forward."""
    original = TracerBase._filter_traceback_frames

    def of_network(tracer, frames: traceback.StackSummary) -> traceback.StackSummary:
        first = next((place for place, frame in enumerate(frames) if frame.name == "forward"), len(frames))
        kept = [frame for frame in frames[first:] if not frame.filename.startswith(_TORCH)]
        return traceback.StackSummary.from_list(kept) if kept else original(tracer, frames)

    try:
        TracerBase._filter_traceback_frames = of_network
        yield
    finally:
        TracerBase._filter_traceback_frames = original


@contextlib.contextmanager
def _quiet_export(network: nn.Module) -> Iterator[None]:
    """What torch.export cannot follow in one sentence with its place, instead of a dump of the graph."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    disabled, logger.disabled = logger.disabled, True
    _trace.print = lambda *values, **options: None  # the graph so far
    try:
        yield
    except QATError:
        raise
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0][:200]
        raise ConversionError(
            f"torch.export cannot follow {_place_of(error, network)} ({type(error).__name__}: {first_line}); it must "
            "not contain branches or sizes that depend on values, and compute with tensors only."
        ) from error
    finally:
        logger.disabled = disabled
        del _trace.print


def _place_of(error: Exception, network: nn.Module) -> str:
    """Module path and line of the network's own code that an error came from; "the network" where none ran."""
    frames = [entry for entry in network_frames(error) if entry[0].f_code.co_filename != __file__]
    if not frames:
        return "the network"
    paths = {id(part): path for path, part in network.named_modules()}
    path = next((paths[own] for frame, _ in reversed(frames) if (own := id(frame.f_locals.get("self"))) in paths), "")
    frame, line = frames[-1]
    return f"{path or 'the network'} at {frame.f_code.co_filename}:{line}"
