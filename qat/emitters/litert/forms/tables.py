"""Functions of one value: a kernel of LiteRT where it gives the program's own entries, else a look-up.

A look-up takes the codes as uint8, which are places in a table that begins with the code 0, and gathers from it.
"""

import functools
from collections.abc import Callable

import numpy
from ai_edge_litert.interpreter import Interpreter

from qat.emitters.litert.functions import function_of
from qat.emitters.litert.limits import offset_of
from qat.emitters.litert.model import Model, Scaling, schema
from qat.emitters.litert.writer import Writer, array_of, codes_array
from qat.integer.operations import Embedding, Table
from qat.integer.reals import dequantize
from qat.integer.values import Grid


def _gelu(approximate: bool) -> Callable:
    def options():
        made = schema.GeluOptionsT()
        made.approximate = approximate
        return made

    return options


#: Kernels by the name of the function, and what makes their options. The kernel of hard swish takes longer than a
#: look-up (`python tests/benchmarks/bench_litert_kernels.py`).
KERNELS: dict[str, tuple[str, Callable]] = {
    "sigmoid": ("LOGISTIC", lambda: None),
    "tanh": ("TANH", lambda: None),
    "gelu": ("GELU", _gelu(False)),
    "gelu_tanh": ("GELU", _gelu(True)),
    "elu": ("ELU", lambda: None),
    "exp": ("EXP", schema.ExpOptionsT),
}
#: Of real numbers there are some more.
REAL_KERNELS = KERNELS | {"hardswish": ("HARD_SWISH", schema.HardSwishOptionsT), "abs": ("ABS", schema.AbsOptionsT)}


def table(writer: Writer, operation: Table) -> None:
    """The function's own kernel, or a look-up."""
    source = operation.inputs[0]
    order = writer.held(source).order
    if writer.real:
        _function(writer, operation, order)
        return
    function = function_of(operation, writer.grid(source), writer.grid(operation.output))
    if _is_kernel(function, operation, writer.grid(source), writer.grid(operation.output)):
        kind, options = KERNELS[function]
        writer.moved(kind, [writer.read(source, order)], operation.output, order, options())
        return
    entries, places = _places(writer, operation, order)
    constant = writer.model.constant(f"{operation.name}/table", entries, writer.scaling(operation.output))
    writer.moved("GATHER", [constant, places], operation.output, order, schema.GatherOptionsT())


def _places(writer: Writer, operation: Table, order) -> tuple[numpy.ndarray, int]:
    """(entries (n,) of the output's type, a tensor of places among them) of a look-up."""
    source, name = operation.inputs[0], operation.name
    shape = writer.model.shape(writer.held(source).tensor)
    tensor = writer.read(source, order)
    codes = codes_array(operation.codes).reshape(-1, operation.codes.shape[-1]) + writer.offset(operation.output)
    if writer.holds_indices(source):
        places, span = tensor, codes.shape[1]
    elif writer.is_wide(source):
        wide, span = cast(writer, tensor, numpy.int32, f"{name}/i"), codes.shape[1]
        places = writer.model.tensor(f"{name}/p", shape, numpy.int32)
        operands = [wide, writer.numbers([-writer.grid(source).quant_min - writer.offset(source)])]
        writer.model.operator("ADD", operands, [places], schema.AddOptionsT())
    else:
        counted = writer.model.tensor(f"{name}/u", shape, numpy.uint8)
        writer.model.operator("BITCAST", [tensor], [counted], schema.BitcastOptionsT())
        places = cast(writer, counted, numpy.int32, f"{name}/i")
        span, first = 256, writer.grid(source).quant_min + writer.offset(source)
        # what no code is gets the nearest entry, which is never asked for
        wanted = numpy.arange(-128, 128).clip(first, first + codes.shape[1] - 1) - first
        codes = numpy.roll(codes[:, wanted], 128, axis=1)
    if len(codes) > 1:
        firsts = numpy.arange(0, codes.size, span, dtype=numpy.int32).reshape(1, -1, *[1] * (len(order) - 2))
        added = writer.model.tensor(f"{name}/c", shape, numpy.int32)
        constant = writer.numbers(firsts.transpose(order))
        writer.model.operator("ADD", [places, constant], [added], schema.AddOptionsT())
        places = added
    return codes.reshape(-1).astype(writer.dtype(operation.output)), places


def cast(writer: Writer, tensor: int, dtype, label: str) -> int:
    """A tensor in another type."""
    made = writer.model.tensor(label, writer.model.shape(tensor), dtype)
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = (writer.model.tensors[each].type for each in (tensor, made))
    writer.model.operator("CAST", [tensor], [made], options)
    return made


def embedding(writer: Writer, operation: Embedding) -> None:
    """GATHER of int8 rows."""
    source = operation.inputs[0]
    rows = array_of(operation.weight.kernel)
    if writer.real:
        rows = rows.astype(numpy.float32) * array_of(operation.weight.scale)[:, None]
    constant = writer.model.constant(f"{operation.name}/weight", rows, writer.scaling(operation.output))
    order = tuple(range(len(writer.shape(operation.output)) + 1))
    writer.moved("GATHER", [constant, writer.read(source)], operation.output, order, schema.GatherOptionsT())


def _is_kernel(function: str, operation: Table, source: Grid, target: Grid) -> bool:
    """Whether LiteRT's own kernel of the function gives just the entries of the table."""
    narrow = isinstance(source, Grid) and source.bits == 8 == target.bits
    if function not in KERNELS or not narrow or operation.codes.dim() != 1:
        return False
    if source.quant_max - source.quant_min != 255 or target.quant_max - target.quant_min != 255:
        return False
    scalings = [Scaling((grid.scale,), grid.zero_point + offset_of(grid)) for grid in (source, target)]
    found = _entries(function, *scalings)
    return found is not None and numpy.array_equal(found, codes_array(operation.codes) + offset_of(target))


@functools.lru_cache(maxsize=256)
def _entries(function: str, source: Scaling, target: Scaling) -> numpy.ndarray | None:
    """What the kernel gives for -128..127; None where it does not take these scales."""
    kind, options = KERNELS[function]
    model, shape = Model(), (1, 256)
    tensors = [model.tensor(name, shape, numpy.int8, scaling) for name, scaling in (("x", source), ("y", target))]
    model.operator(kind, tensors[:1], tensors[1:], options())
    content = model.to_bytes({"x": tensors[0]}, {"y": tensors[1]}, "")
    interpreter = Interpreter(model_content=content, num_threads=1)
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError):
        return None
    interpreter.set_tensor(tensors[0], numpy.arange(-128, 128, dtype=numpy.int8)[None])
    interpreter.invoke()
    return interpreter.get_tensor(tensors[1])[0].astype(numpy.int64)


def _function(writer: Writer, operation: Table, order) -> None:
    """The function of real numbers where it has a kernel, else the table's own points."""
    source = operation.inputs[0]
    tensor, target = writer.read(source, order), writer.made(operation.output, order)
    function = function_of(operation, writer.grid(source), writer.grid(operation.output))
    if function in REAL_KERNELS:
        kind, options = REAL_KERNELS[function]
        writer.model.operator(kind, [tensor], [target], options())
        return
    shape = writer.model.shape(tensor)
    if function == "silu":
        sigmoid = writer.model.tensor(f"{operation.name}/sigmoid", shape, numpy.float32)
        writer.model.operator("LOGISTIC", [tensor], [sigmoid])
        writer.model.operator("MUL", [tensor, sigmoid], [target], schema.MulOptionsT())
        return
    _look_up_real(writer, operation, order, tensor, target)


def _look_up_real(writer: Writer, operation: Table, order, tensor: int, target: int) -> None:
    source, shape = operation.inputs[0], writer.model.shape(tensor)
    points = array_of(dequantize(operation.codes, writer.grid(operation.output)))
    places = tensor
    if not writer.holds_indices(source):
        grid, name = writer.grid(source), operation.name
        codes = writer.model.tensor(
            f"{name}/u", shape, numpy.int8, Scaling((grid.scale,), grid.zero_point + offset_of(grid))
        )
        writer.quantize(tensor, codes)
        counted = writer.model.tensor(f"{name}/b", shape, numpy.uint8)
        writer.model.operator("BITCAST", [codes], [counted], schema.BitcastOptionsT())
        places = cast(writer, counted, numpy.int32, f"{name}/i")
        first = grid.quant_min + offset_of(grid)
        wanted = numpy.arange(-128, 128).clip(first, first + points.shape[-1] - 1) - first
        points = numpy.roll(points[..., wanted], 128, axis=-1)
    if points.ndim == 2:
        firsts = numpy.arange(0, points.size, points.shape[1], dtype=numpy.int32)
        firsts = firsts.reshape(1, -1, *[1] * (len(order) - 2)).transpose(order)
        added = writer.model.tensor(f"{operation.name}/c", shape, numpy.int32)
        writer.model.operator("ADD", [places, writer.numbers(firsts)], [added], schema.AddOptionsT())
        places = added
    entries = writer.model.constant(f"{operation.name}/table", points.reshape(-1).astype(numpy.float32))
    writer.model.operator("GATHER", [entries, places], [target], schema.GatherOptionsT())
