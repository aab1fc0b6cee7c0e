"""The exported graph of a program: `torch.export` of its module, with the operations of the program named in it."""

import logging

import torch
from torch.export import Dim, ExportedProgram

from qat.errors import ExportError
from qat.integer.interpreter import edge_dtype
from qat.integer.lengths import Length
from qat.integer.program import IntegerProgram, Loop
from qat.integer.steps import Step

#: Samples of the traced batch: torch specializes on batches of one, and on nothing else.
TRACED_BATCH = 3
#: What a node keeps of its trace; file paths and lines of this package are nobody's business.
KEPT = {"val", "tensor_meta", "custom"}
#: The key under which `custom` holds the name and the kind of the operation that a node is part of.
OPERATION = "operation"

_LOG = logging.getLogger("qat")


def exported(program: IntegerProgram) -> tuple[IntegerProgram, ExportedProgram]:
    """The program's graph for any batch size, and the program that it computes: of all lengths, or of the recorded one.

    A loop is unrolled, and so is of one length; torch cannot follow some other sizes either. Raises `ExportError`
    where torch does not export the module.
    """
    if program.lengths and not any(isinstance(operation, Loop) for operation in program.operations):
        try:
            return program, _traced(program)
        except ExportError as error:
            _LOG.warning("the .pt2 file takes the recorded length only, since torch.export cannot follow: %s", error)
    elif program.lengths:
        _LOG.warning("the .pt2 file takes the recorded length only, since its loops are unrolled")
    program = program.at()
    return program, _traced(program)


def _traced(program: IntegerProgram) -> ExportedProgram:
    """The graph of the program's module. Raises `ExportError` where torch does not export it."""
    module = program.to_module()
    batch = Dim("batch", min=1)
    lengths = {
        entry.symbol: Dim(entry.symbol, min=entry.shortest, max=entry.longest)
        for entry in program.lengths
        if entry.shortest < entry.longest
    }
    examples, shapes = [], []
    for edge in program.inputs:
        value = program.value(edge.value)
        examples.append(torch.zeros(TRACED_BATCH, *value.shape, dtype=edge_dtype(value.grid, edge.codes)))
        dims = {0: batch}
        for dim, size in enumerate(value.shape, start=1):
            if isinstance(size, Length) and size.symbol in lengths:
                dims[dim] = _derived(lengths[size.symbol], size)
        shapes.append(dims)
    try:
        graph = torch.export.export(module, tuple(examples), dynamic_shapes=tuple(shapes))
    except Exception as error:  # torch has many kinds of refusal
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(f"torch {torch.__version__} does not export the program ({reason}).") from error
    _name_operations(graph, module)
    return graph


def _derived(dim: Dim, size: Length) -> Dim:
    """The dimension whose size follows another."""
    if size.divisor != 1:
        raise ExportError(f"an input has a size {size.describe()}, which torch.export has no dimension for")
    return dim if (size.multiple, size.offset) == (1, 0) else size.multiple * dim + size.offset


def _name_operations(graph: ExportedProgram, module: torch.nn.Module) -> None:
    """Say at each node which operation it is of; take away what else was traced along, and checks of dtypes."""
    steps = {path: step for path, step in module.named_modules() if isinstance(step, Step)}
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
            continue
        path = next(
            (path for path, _ in reversed(node.meta.get("nn_module_stack", {}).values()) if path in steps), None
        )
        node.meta = {key: entry for key, entry in node.meta.items() if key in KEPT}
        if path is not None:
            operation = steps[path].operation
            node.meta["custom"] = {OPERATION: [operation.name, type(operation).__name__]}
    graph.graph_module.recompile()
