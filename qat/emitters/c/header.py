"""The header of an exported program: everything that a caller has to know, written for C and read back for Python."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qat.emitters.c.types import CTYPES, CType, type_of
from qat.emitters.c.writer import quoted
from qat.errors import ExportError
from qat.integer.values import AnyGrid, Grid, IndexRange, float32

REAL, CODES, INDICES = "codes of real numbers", "codes", "indices"


@dataclass(frozen=True)
class Port:
    """An input or output. name: as the program calls it. identifier: as C does.

    grid: what its codes stand for. codes: whether the program gives and takes codes there as well.
    channels_last: whether the first dimension of `shape` is the fastest in memory.
    """

    name: str
    identifier: str
    shape: tuple[int, ...]
    grid: AnyGrid
    codes: bool = False
    channels_last: bool = False

    @property
    def ctype(self) -> CType:
        """The type of its elements."""
        return type_of(self.grid)

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """What its elements are."""
        return INDICES if isinstance(self.grid, IndexRange) else CODES if self.codes else REAL


@dataclass(frozen=True)
class Interface:
    """What a header says. prefix: of every name. arena_bytes: of RAM, besides inputs, outputs and a small stack.

    constant_bytes: of flash, besides the code, where pointers have 4 bytes. fingerprint: of the source beside it.
    """

    prefix: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_bytes: int
    constant_bytes: int
    fingerprint: int = 0

    @property
    def parameters(self) -> str:
        """The parameters of the function that runs the program."""
        words = [f"const {port.ctype.name} *{port.identifier}, size_t {port.identifier}_bytes" for port in self.inputs]
        words += [f"{port.ctype.name} *{port.identifier}, size_t {port.identifier}_bytes" for port in self.outputs]
        return ",\n    ".join([*words, "void *arena, size_t arena_bytes"])


_HEADER = """/* {NAME}: an integer network. One sample a call, no allocation, no state, no floating point.

   RAM: {PREFIX}_ARENA_BYTES, besides inputs and outputs. Flash: {PREFIX}_CONSTANT_BYTES, besides the code.

       static {prefix}_arena_t arena;
       static {first_type} {first}[{PREFIX}_{FIRST}_SIZE];
       ...
       if ({PREFIX}_RUN({arguments}, arena) != {PREFIX}_OK) ...

   {PREFIX}_RUN takes arrays, and those of another size do not compile; {prefix}_run takes pointers and bytes, and
   returns an error. */

#ifndef {PREFIX}_H
#define {PREFIX}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {PREFIX}_FINGERPRINT 0x{fingerprint:08x}
#define {PREFIX}_ARENA_BYTES {arena_bytes}
#define {PREFIX}_CONSTANT_BYTES {constant_bytes}

{ports}
{labels}/* What {prefix}_run returns. */
enum {{
    {PREFIX}_OK = 0,
    {PREFIX}_ERROR_NULL = 1,  /* a pointer is 0 */
    {PREFIX}_ERROR_SIZE = 2,  /* an input or output has another size */
    {PREFIX}_ERROR_ARENA = 3, /* the arena is too small, or does not begin at a multiple of 8 */
    {PREFIX}_ERROR_RANGE = 4  /* an input has a code outside of its MIN..MAX */
}};

typedef union {{
    uint8_t bytes[{arena_size}];
    int64_t alignment;
}} {prefix}_arena_t;

/* No input, output and arena may overlap. */
int {prefix}_run({parameters});

/* The same for arrays, whose sizes the compiler checks. */
#define {PREFIX}_HAS_BYTES(array, bytes) ((void)sizeof(char[sizeof(array) == (bytes) ? 1 : -1]))
#define {PREFIX}_RUN({arguments}, arena) \\
    ({checks}, \\
        {PREFIX}_HAS_BYTES(arena, sizeof({prefix}_arena_t)), \\
        {prefix}_run({passed}, &(arena), sizeof(arena)))

#ifdef {PREFIX}_WITH_FLOAT
/* For callers that have real numbers: {PREFIX}_WITH_FLOAT is all that this header has of floating point. */
static inline int32_t {prefix}_quantized(float real, float scale, int32_t zero_point, int32_t low, int32_t high)
{{
    const float steps = real / scale, least = (float)(low - zero_point), most = (float)(high - zero_point);
    const float limited = steps < least ? least : steps > most ? most : steps;
    int32_t whole = (int32_t)limited;
    float rest;
    if ((float)whole > limited)
        whole--;
    rest = limited - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && (whole & 1)))
        whole++;
    return whole + zero_point;
}}

static inline float {prefix}_real(int32_t code, float scale, int32_t zero_point)
{{
    return (float)(code - zero_point) * scale;
}}
#endif

#ifdef __cplusplus
}}
#endif

#endif
"""


def header_text(interface: Interface, labels: Sequence[str] = ()) -> str:
    """The header. labels: names of the classes, in the order of the last output's last dimension."""
    prefix, upper = interface.prefix, interface.prefix.upper()
    ports = [_port_text(upper, "Input", port) for port in interface.inputs]
    ports += [_port_text(upper, "Output", port) for port in interface.outputs]
    both = (*interface.inputs, *interface.outputs)
    names = [port.identifier for port in both]
    checks = [f"{upper}_HAS_BYTES({port.identifier}, {upper}_{port.identifier.upper()}_BYTES)" for port in both]
    named = f"#define {upper}_LABELS {{{', '.join(map(_string, labels))}}}\n\n" if labels else ""
    return _HEADER.format(
        NAME=prefix,
        prefix=prefix,
        PREFIX=upper,
        first=names[0],
        FIRST=names[0].upper(),
        first_type=interface.inputs[0].ctype.name,
        fingerprint=interface.fingerprint,
        arena_bytes=interface.arena_bytes,
        arena_size=max(interface.arena_bytes, 1),
        constant_bytes=interface.constant_bytes,
        ports="\n".join(ports),
        labels=named,
        parameters=interface.parameters,
        arguments=", ".join(names),
        checks=", \\\n        ".join(checks),
        passed=", ".join(f"({name}), sizeof({name})" for name in names),
    )


def _port_text(upper: str, side: str, port: Port) -> str:
    name = f"{upper}_{port.identifier.upper()}"
    shape = f"{{{', '.join(map(str, port.shape)) or '1'}}}"
    numbers = {
        "TYPE": port.ctype.name,
        "RANK": len(port.shape),
        "SHAPE": shape,
        "CHANNELS_LAST": int(port.channels_last),
        "SIZE": port.count,
        "BYTES": port.count * port.ctype.bytes,
        "MIN": port.grid.quant_min,
        "MAX": port.grid.quant_max,
    }
    if isinstance(port.grid, Grid):
        numbers |= {"SCALE": f"{_decimal(port.grid.scale)}f", "ZERO_POINT": port.grid.zero_point}
    lines = [f"/* {side} {quoted(port.name)}: {port.kind} */"]
    return "\n".join([*lines, *(f"#define {name}_{key} {number}" for key, number in numbers.items())]) + "\n"


def _decimal(scale: float) -> str:
    """Nine significant digits, which tell every float32 apart."""
    text = f"{scale:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _string(text: str) -> str:
    """A string of C: what is not plain ASCII as octal bytes, a ? so that it begins no trigraph."""
    plain = {ord("?"): r"\?", ord('"'): r"\"", ord("\\"): r"\\"}
    return (
        '"'
        + "".join(plain.get(byte, chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in text.encode())
        + '"'
    )


def read_header(text: str, path) -> Interface:
    """What a header says. Raises `ExportError` for one that `header_text` did not write. path: for the error."""
    try:
        upper = re.search(r"#ifndef (\w+)_H\n", text).group(1)
        numbers = dict(re.findall(rf"#define {upper}_(\w+) (.*)", text))
        found = re.findall(
            rf'/\* (Input|Output) (".*"): ({REAL}|{CODES}|{INDICES}) \*/\n#define {upper}_(\w+)_TYPE', text
        )
        prefix = re.search(r"\nint (\w+)_run\(", text).group(1)
        identifiers = re.findall(r"size_t (\w+)_bytes", text.split(f"int {prefix}_run(")[1].split(";")[0])
        ports = {"Input": [], "Output": []}
        for (side, name, kind, key), identifier in zip(found, identifiers, strict=False):
            ports[side].append(_port(json.loads(name), identifier, kind, key, numbers))
        return Interface(
            prefix=prefix,
            inputs=tuple(ports["Input"]),
            outputs=tuple(ports["Output"]),
            arena_bytes=int(numbers["ARENA_BYTES"]),
            constant_bytes=int(numbers["CONSTANT_BYTES"]),
            fingerprint=int(numbers["FINGERPRINT"], 16),
        )
    except (AttributeError, KeyError, ValueError, IndexError) as error:
        raise ExportError(f"{path} is no header of an exported program; export the program again.") from error


def _port(name: str, identifier: str, kind: str, key: str, numbers: dict[str, str]) -> Port:
    sizes = [int(size) for size in numbers[f"{key}_SHAPE"].strip("{}").split(",")]
    if kind == INDICES:
        grid: AnyGrid = IndexRange(int(numbers[f"{key}_MAX"]) + 1)
    else:
        scale = float32(float(numbers[f"{key}_SCALE"].rstrip("f")))
        limits = (int(numbers[f"{key}_{end}"]) for end in ("ZERO_POINT", "MIN", "MAX"))
        grid = Grid(scale, *limits)
    if CTYPES[numbers[f"{key}_TYPE"]] != type_of(grid):
        raise ValueError(key)
    return Port(
        name=name,
        identifier=identifier,
        shape=tuple(sizes[: int(numbers[f"{key}_RANK"])]),
        grid=grid,
        codes=kind == CODES,
        channels_last=numbers[f"{key}_CHANNELS_LAST"] == "1",
    )
