"""Where in a network's code a torch call stands, the same in every forward.

The *site* of a call is the chain of code positions from the network's forward down to the call, leaving out torch's own
plumbing. Sites alone are not unique (a Sequential calls all its children from one line), so an *address* also knows the
address before it: a forward follows recorded transitions (previous address, site) -> address. A loop of any length
walks in circles over the same addresses; a branch that was never recorded has no transition and raises.
"""

import opcode
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType

import torch
import torch.utils.checkpoint

from qat.errors import AddressError

_TORCH = os.path.dirname(torch.__file__) + os.sep
#: Code of torch that calls like a network's own: layers, and what parametrizes their weights.
_TORCH_LAYERS = tuple(os.path.join(_TORCH, "nn", part) + os.sep for part in ("modules", "utils"))
#: Code that runs calls of the network in its place.
_OWN = os.path.dirname(__file__) + os.sep
_MODULE_CALL = os.path.join(_TORCH, "nn", "modules", "module.py")
_CHECKPOINT = torch.utils.checkpoint.__file__
_EVAL_FRAME = os.path.join(_TORCH, "_dynamo", "eval_frame.py")

#: Token of the forward of a prepared network: the chain ends there.
_ROOT = -1

#: id of a code object -> (the code object, kept alive; its token). None: plumbing, left out of the chain. A token is a
#: checksum of the code's place and not of its text's hash, so that a pickled network finds its addresses elsewhere too.
_TOKENS: dict[int, tuple[CodeType, int | None]] = {}

START = -1

_PRECALL = opcode.opmap.get("PRECALL")

#: id of a code object of `_TOKENS` -> offset of every PRECALL -> offset of its CALL, behind one cache entry.
_CALLS: dict[int, dict[int, int]] = {}


class AmbiguousCallError(AddressError):
    """Two calls that follow the address `previous` stand in one place of the code."""

    def __init__(self, message: str, previous: int):
        super().__init__(message)
        self.previous = previous


def mark_root(code: CodeType) -> None:
    """Declare that chains end at the frame that runs `code`."""
    _TOKENS[id(code)] = (code, _ROOT)


def mark_plumbing(code: CodeType) -> None:
    """Declare that frames that run `code` are no place of their own: a mode that runs a function written in parts."""
    _TOKENS[id(code)] = (code, None)


def _token(code: CodeType) -> int | None:
    filename = code.co_filename
    if filename == _CHECKPOINT:
        token = _ROOT  # a recomputed region is entered from the backward pass: its chain ends at its boundary
    elif filename.startswith(_TORCH) and not _is_layer(filename):
        token = None
    else:
        token = zlib.crc32(f"{os.path.basename(filename)}:{code.co_qualname}:{code.co_firstlineno}".encode())
    _TOKENS[id(code)] = (code, token)
    return token


def site_of(frame: FrameType, by_line: bool = False) -> int:
    """A number for the chain of code positions from `frame` up to the network's forward.

    by_line: of lines alone. Where Python 3.11 has run `bool(tensor)` often, the call moves by an instruction.
    """
    chain = []
    while frame is not None:
        code = frame.f_code
        known = _TOKENS.get(id(code))
        token = known[1] if known is not None else _token(code)
        if token == _ROOT:
            break
        if token is not None:
            chain.append(token)
            chain.append(frame.f_lineno if by_line else _position(code, frame.f_lasti))
        frame = frame.f_back
    return hash(tuple(chain))


def _position(code: CodeType, instruction: int) -> int:
    """The offset of a call's own instruction.

    Python 3.11 makes a call to a built-in function (`abs(x)`, `sum(parts)`) that ran often from the instruction before
    it, PRECALL; 3.12 has none.
    """
    if _PRECALL is None:
        return instruction
    calls = _CALLS.get(id(code))
    if calls is None:
        names = code.co_code  # as compiled, not as Python adapts it
        calls = {place: place + 4 for place in range(0, len(names), 2) if names[place] == _PRECALL}
        _CALLS[id(code)] = calls
    return calls.get(instruction, instruction)


def source_of(frame: FrameType) -> str:
    """`file:line` of the innermost line of the network's own code, as a person would look for the call.

    Where there is none, since layers of torch call each other alone, the innermost line of those.
    """
    frames = list(_frames_to_root(frame))
    own = (inner for inner in frames if is_network(inner))
    layers = (inner for inner in frames if _is_layer(inner.f_code.co_filename))
    found = next(own, None) or next(layers, frame)
    return f"{found.f_code.co_filename}:{found.f_lineno}"


def short_source(source: str) -> str:
    """`file:line` without the folder that its code was imported from, or that the process runs in."""
    roots = {os.path.abspath(root) for root in (*sys.path, os.curdir)}
    longest = max((root for root in roots if source.startswith(root + os.sep)), key=len, default=None)
    return source if longest is None else source[len(longest) + len(os.sep) :]


def is_network(frame: FrameType) -> bool:
    """Whether a network's own code runs in the frame, and not torch's or that of this package's modes."""
    return not frame.f_code.co_filename.startswith((_TORCH, _OWN))


def _is_layer(filename: str) -> bool:
    """Whether a file holds code of torch that calls like a network's own."""
    return filename.startswith(_TORCH_LAYERS) and filename != _MODULE_CALL


def inside_checkpoint(frame: FrameType) -> str | None:
    """`"reentrant"` or `"non_reentrant"` where the call stands in an activation-checkpointed region, else None."""
    for code in (inner.f_code for inner in _frames_to_root(frame)):
        if code.co_filename == _CHECKPOINT:
            return "reentrant" if "CheckpointFunction" in code.co_qualname else "non_reentrant"
    return None


def inside_compiled(frame: FrameType) -> bool:
    """Whether the call stands in a function or layer of the network that was given to torch.compile."""
    codes = (inner.f_code for inner in _frames_to_root(frame))
    return any(code.co_filename == _EVAL_FRAME and code.co_name == "compile_wrapper" for code in codes)


def _frames_to_root(frame: FrameType) -> Iterator[FrameType]:
    """`frame` and those around it, up to and without that of the network's forward."""
    while frame is not None:
        code = frame.f_code
        known = _TOKENS.get(id(code))
        if known is not None and known[1] == _ROOT and code.co_filename != _CHECKPOINT:
            return
        yield frame
        frame = frame.f_back


def caller(depth: int) -> FrameType:
    """The frame `depth` levels above the function that calls this one."""
    return sys._getframe(depth + 1)


@dataclass
class Transitions:
    """The recorded automaton.

    steps: (previous address, site) -> address. names: address -> what the user calls it, for errors.
    """

    steps: dict[tuple[int, int], int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def add(self, previous: int, site: int, address: int, name: str) -> None:
        """Record one step. Raises `AmbiguousCallError` where the code cannot be told apart by its positions."""
        known = self.steps.setdefault((previous, site), address)
        if known != address:
            raise AmbiguousCallError(
                f"{name} and {self.names[known]} are called from the same place in the code and cannot be told apart; "
                "give each its own line or its own module.",
                previous,
            )
        self.names[address] = name

    def follow(self, previous: int, site: int, operation: str, frame: FrameType) -> int:
        """The address of the call at `site` after `previous`. Raises `AddressError` where there is none."""
        address = self.steps.get((previous, site))
        if address is None:
            after = f"after {self.names[previous]}" if previous in self.names else "at the start of the forward"
            raise AddressError(
                f"{operation} at {source_of(frame)} runs {after}, which it did not when the network was recorded, so "
                "it would pass unquantized; prepare again with example_inputs that take this path, or keep the path "
                "fixed."
            )
        return address

    def around(self, previous: int, site: int, is_optional: Callable[[int], bool]) -> list[int]:
        """The shortest way from `previous` to `site` over optional calls: their addresses, and last the one at `site`.

        Empty where there is none.
        """
        ways = deque([[previous]])
        seen = {previous}
        while ways:
            way = ways.popleft()
            address = self.steps.get((way[-1], site))
            if address is not None:
                return [*way[1:], address]
            for following in self._behind(way[-1]):
                if following not in seen and is_optional(following):
                    seen.add(following)
                    ways.append([*way, following])
        return []

    def _behind(self, address: int) -> list[int]:
        return [following for (previous, _), following in self.steps.items() if previous == address]
