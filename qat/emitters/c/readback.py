"""What an exported source says of itself: operations, constants, size, and whether it computes in real numbers."""

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from qat.emitters.c.compiler import INTEGER_ONLY, STRICT, compile_source, find_compiler, knows_integer_only
from qat.emitters.c.constants import POINTER_BYTES
from qat.emitters.c.session import header_of, read_interface
from qat.emitters.c.types import CTYPES
from qat.emitters.options import FileOperation

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
#: Words and numbers of real arithmetic.
_REAL = re.compile(
    r"\b(?:float|double|_Complex|math\.h|float\.h)\b|(?<![\w.])(?:\d+\.\d*|\.\d+|\d+[eE][+-]?\d+)(?:[eE][+-]?\d+)?[fFlL]?"
)
#: What lines of arrays have, which is most of a source.
_NUMBERS = re.compile(r"^ +[-\d, ]+$", re.MULTILINE)
_ARRAY = re.compile(r"static const (\w+) (\w+)\[(\d+)\] = \{")
_RECORD = re.compile(r"static const (\w+) (\w+) = \{\n(.*?)\n\};", re.DOTALL)
#: An operation: the comment above its calls, and the calls up to the next comment.
_OPERATION = re.compile(r"    /\* (\w+) (\"(?:\\.|[^\"\\])*\")[^\n]* \*/\n((?:(?!    /\*|    return|\}).*\n)*)")
_CALL = re.compile(r"^    (\w+)\(", re.MULTILINE)
_OUTPUT = "Output"


@dataclass(frozen=True)
class Footprint:
    """What a source takes of a processor, in bytes.

    arena: of RAM, for the values in between. inputs, outputs: of RAM, which the caller has. constants: of flash. All
    as the header says, where pointers have 4 bytes; code and stack are the compiler's.
    """

    arena: int
    inputs: int
    outputs: int
    constants: int


def footprint(path: str | PathLike) -> Footprint:
    """What the header beside the source at `path` says that it takes."""
    interface = read_interface(path)
    inputs, outputs = (
        sum(port.count * port.ctype.bytes for port in ports) for ports in (interface.inputs, interface.outputs)
    )
    return Footprint(interface.arena_bytes, inputs, outputs, interface.constant_bytes)


def stored_bytes(path: str | PathLike) -> int:
    """The constants that a device stores, in bytes; not the text of the source, nor the code."""
    return read_interface(path).constant_bytes


def float_ops(path: str | PathLike) -> list[str]:
    """Lines of the source that compute in real numbers, and what the compiler finds that may use no such register.

    Empty for an integer source. What the header has for callers with real numbers is not counted, as long as the
    source does not ask for it.
    """
    interface = read_interface(path)
    guarded = re.compile(rf"#ifdef {interface.prefix.upper()}_WITH_FLOAT\n.*?#endif", re.DOTALL)
    source = Path(path).read_text()
    found = []
    for file, text in ((Path(path), source), (header_of(path), guarded.sub(_blank, header_of(path).read_text()))):
        bare = _STRING.sub('""', _COMMENT.sub(_blank, _NUMBERS.sub("", text)))
        for number, line in enumerate(bare.splitlines(), start=1):
            if not line.startswith("#define") and (match := _REAL.search(line)):
                found.append(f"{match.group()} in line {number} of {file.name}")
    if f"{interface.prefix.upper()}_WITH_FLOAT" in source:
        found.append(f"{interface.prefix.upper()}_WITH_FLOAT in {Path(path).name}")
    return found or refused_by_compiler(path)


def refused_by_compiler(path: str | PathLike) -> list[str]:
    """What the compiler says where it may use no floating-point register; empty where it knows no such option."""
    if find_compiler() is None or not knows_integer_only():
        return []
    with tempfile.TemporaryDirectory() as folder:
        return compile_source(Path(path), Path(folder) / "network.o", ("-c", "-O2", *STRICT, INTEGER_ONLY))


def operations(path: str | PathLike) -> list[FileOperation]:
    """The operations of a source, in the order in which they run, in loops as well; what only renames is none.

    bytes: of the constants that each is the first to read.
    """
    text = Path(path).read_text()
    sizes, reads = _constants(text)
    seen: set[str] = set()
    found = []
    for kind, name, calls in _OPERATION.findall(text):
        if kind == _OUTPUT:
            continue
        size = 0
        for constant in _reached(re.findall(r"\w+", calls), reads):
            size += 0 if constant in seen else sizes[constant]
            seen.add(constant)
        called = _CALL.findall(calls)
        found.append(FileOperation(json.loads(name), kind, _operand_type(text, called[-1]), size))
    return found


def _blank(match: re.Match) -> str:
    """As many lines as there were."""
    return "\n" * match.group().count("\n")


def _constants(text: str) -> tuple[dict[str, int], dict[str, list[str]]]:
    """(bytes of each constant, the constants that it points to)."""
    sizes = {name: CTYPES[kind].bytes * int(count) for kind, name, count in _ARRAY.findall(text)}
    reads: dict[str, list[str]] = {name: [] for name in sizes}
    for _, name, body in _RECORD.findall(text):
        words = re.findall(r"(?<!\.)\b\w+\b(?! =)", body)
        sizes[name] = POINTER_BYTES * len(words)
        reads[name] = words
    return sizes, reads


def _reached(words: list[str], reads: dict[str, list[str]]) -> Iterator[str]:
    """Constants among the words, and those that they point to."""
    for word in words:
        if word in reads:
            yield word
            yield from _reached(reads[word], reads)


def _operand_type(text: str, function: str) -> str:
    """The type of the elements that a function reads first: "uint8"."""
    parameters = re.search(rf"static void {function}\((.*?)\)", text, re.DOTALL).group(1)
    operand = re.search(r"const (u?int\d+)_t \*(?:restrict )?(?:x|a|first|x0)\b", parameters)
    return operand.group(1) if operand else re.search(r"(u?int\d+)_t \*", parameters).group(1)
