"""The source of a program: kernels, constants, and one function that calls them in order."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qat.emitters.c.forms import FORMS
from qat.emitters.c.header import Interface, Port, header_text
from qat.emitters.c.kernels import Kernel
from qat.emitters.c.names import Names, identifier
from qat.emitters.c.views import Buffer, View, channels_last, plain, strides_of
from qat.emitters.c.writer import Module, Writer
from qat.integer.program import Input, IntegerProgram, Output

#: Dimensions of an image, without the batch.
IMAGE_RANK = 3

WITHIN = Kernel(
    "within",
    """
/* Whether all of `count` codes lie in low..high. */
static int within_@x(const @X *x, int32_t count, int32_t low, int32_t high)
{
    int32_t i, outside = 0;
    for (i = 0; i < count; i++)
        outside |= x[i] < low || x[i] > high;
    return !outside;
}
""",
    "x",
)

_SOURCE = """/* {prefix}: an integer network. {prefix}.h says how to call it. */

#include "{header}"

#if {PREFIX}_FINGERPRINT != 0x{fingerprint:08x}
#error "{header} belongs to another source; take both files of one export"
#endif

/* What is taken for granted of the processor: two's complement, and >> that keeps the sign. */
typedef char keeps_the_sign[(-1 >> 1) == -1 ? 1 : -1];
typedef char has_bytes[sizeof(int32_t) == 4 * sizeof(uint8_t) ? 1 : -1];

/* Most nested loops, and most operands, that a walk has here. */
enum {{ RANK = {rank}, OPERANDS = {operands} }};

#define AT(type, place) ((type *)(void *)(arena + (place)))

/* -- kernels -- */

{kernels}

/* -- constants -- */

{constants}

/* -- the network -- */

{functions}int {prefix}_run({parameters})
{{
{body}
    return {PREFIX}_OK;
}}
"""


@dataclass(frozen=True)
class Sources:
    """Both files of an export."""

    source: str
    header: str
    interface: Interface


def write_sources(program: IntegerProgram, name: str, labels: Sequence[str] = (), images_last: bool = False) -> Sources:
    """Both files. program: of one length. name: of the files without their suffix; every name in them begins with it.

    images_last: whether inputs of three dimensions are taken with channels last.
    """
    prefix = identifier(name)
    module = Module()
    for word in ("run", "arena_t", "quantized", "real"):
        module.names.claim(f"{prefix}_{word}")
    inputs = tuple(_port(program, edge, module.names, images_last) for edge in program.inputs)
    outputs = tuple(_port(program, edge, module.names, False) for edge in program.outputs)
    taken = {edge.value: _view(port) for edge, port in zip(program.inputs, inputs, strict=True)}
    given = [(edge.value, _view(port)) for edge, port in zip(program.outputs, outputs, strict=True)]
    writer = Writer(module, program, taken, given, FORMS)
    arena_bytes, calls = writer.write()
    interface = Interface(prefix, inputs, outputs, arena_bytes, module.constant_bytes)
    checks = _checks(module, interface)
    unused = [view.buffer.expression for view in taken.values() if view.buffer not in writer.used]
    body = [*(f"    (void){name};" for name in unused), checks, calls]
    fields = {
        "prefix": prefix,
        "PREFIX": prefix.upper(),
        "header": f"{name}.h",
        "rank": module.rank,
        "operands": module.operands,
        "kernels": "\n\n".join(module.kernels.texts),
        "constants": "\n\n".join(module.constants.texts),
        "functions": "".join(f"{text}\n\n" for text in module.functions),
        "parameters": interface.parameters.replace("void *arena,", "void *memory,"),
        "body": "\n".join(filter(None, body)),
    }
    digest = hashlib.sha256(repr((fields, header_text(interface, labels))).encode()).hexdigest()
    interface = replace(interface, fingerprint=int(digest[:8], 16))
    source = _SOURCE.format(**fields, fingerprint=interface.fingerprint)
    return Sources(source, header_text(interface, labels), interface)


def _port(program: IntegerProgram, edge: Input | Output, names: Names, images_last: bool) -> Port:
    value = program.value(edge.value)
    last = images_last and len(value.shape) == IMAGE_RANK
    return Port(
        edge.name,
        names.claim_with(identifier(edge.name).lower(), "_bytes"),
        tuple(value.shape),
        value.grid,
        edge.codes,
        last,
    )


def _view(port: Port) -> View:
    rank = len(port.shape)
    order = channels_last(rank) if port.channels_last else plain(rank)
    return View(Buffer(port.ctype, math.prod(port.shape), port.identifier), port.shape, strides_of(port.shape, order))


def _checks(module: Module, interface: Interface) -> str:
    """What is looked at before anything is read."""
    upper = interface.prefix.upper()
    ports = (*interface.inputs, *interface.outputs)
    pointers = " || ".join(f"!{port.identifier}" for port in ports)
    sizes = " || ".join(f"{port.identifier}_bytes != {upper}_{port.identifier.upper()}_BYTES" for port in ports)
    lines = [
        "    uint8_t *const arena = (uint8_t *)memory;",
        f"    if ({_wrapped(pointers)}{' || !memory' if interface.arena_bytes else ''})",
        f"        return {upper}_ERROR_NULL;",
        f"    if ({_wrapped(sizes)})",
        f"        return {upper}_ERROR_SIZE;",
    ]
    if interface.arena_bytes:
        lines += [
            f"    if (arena_bytes < {upper}_ARENA_BYTES || ((uintptr_t)memory & 7))",
            f"        return {upper}_ERROR_ARENA;",
        ]
    else:
        lines += ["    (void)arena;", "    (void)arena_bytes;"]
    for port in interface.inputs:
        if (port.grid.quant_min, port.grid.quant_max) != port.ctype.limits:
            name, macro = port.identifier, f"{upper}_{port.identifier.upper()}"
            within = module.kernels.need(WITHIN, (port.ctype,))
            lines += [
                f"    if (!{within}({name}, {macro}_SIZE, {macro}_MIN, {macro}_MAX))",
                f"        return {upper}_ERROR_RANGE;",
            ]
    return "\n".join(lines)


def _wrapped(condition: str) -> str:
    return condition.replace(" || ", "\n        || ") if len(condition) > 80 else condition
