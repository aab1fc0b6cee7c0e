"""Models as files: one, or beyond what a protobuf holds two, of which the second has the weights.

`model.onnx` then names `model.onnx.data` in the same folder, as ONNX's external data; runtimes find it there on their
own, so both are moved together.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from qat.emitters.onnxruntime.graph import Graph, Initializer
from qat.files import written_together, written_whole
from qat.integer.program import IntegerProgram

#: Bytes of weights up to which a model is one file. A protobuf has at most 2^31; names and nodes take some.
MAX_SINGLE_BYTES = 2**31 - 2**26
#: Smaller tensors stay in the model, where shapes and axes can be read without the side file.
MIN_EXTERNAL_BYTES = 1024
#: Weights begin at pages, so that a runtime can map them.
PAGE = 4096


@contextlib.contextmanager
def written(
    graph: Graph,
    program: IntegerProgram,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    single_bytes: int | None = None,
) -> Iterator[Path]:
    """The model of `graph` under a temporary name, which becomes `path` when the block ends without an error.

    program, metadata: as for `Graph.model`. single_bytes: where weights take more, they go to a side file; by default
    `MAX_SINGLE_BYTES`. Raises `ExportError` where the folder cannot be written to; the files of before are then kept.
    """
    limit = MAX_SINGLE_BYTES if single_bytes is None else single_bytes
    before = side_file(path)
    tensors = graph.used()
    if sum(tensor.size for tensor in tensors) <= limit:
        with written_whole(path, graph.to_bytes(program, metadata)) as temporary:
            yield temporary
        if before is not None:
            before.unlink(missing_ok=True)
        return
    side = path.with_name(f"{path.name}.data")
    large = [tensor for tensor in tensors if tensor.size >= MIN_EXTERNAL_BYTES]
    offsets = itertools.accumulate((_pages(tensor.size) for tensor in large), initial=0)
    places = {tensor.name: (side.name, offset) for tensor, offset in zip(large, offsets, strict=False)}
    model = graph.model(program, metadata, places)
    with written_together({path: [model], side: _contents(large)}) as folder:
        onnx.checker.check_model(str(folder / path.name))
        yield folder / path.name


def side_file(path: str | PathLike) -> Path | None:
    """The file with the weights of the model at `path`; None where they are in it, or where there is no model."""
    path = Path(path)
    if not path.is_file():
        return None
    with contextlib.suppress(OSError, DecodeError):  # something else is there
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location" and entry.value == f"{path.name}.data":
                    return path.with_name(entry.value)
    return None


def files_of(path: str | PathLike) -> tuple[Path, ...]:
    """The files of the model at `path`, that first."""
    return (Path(path), *filter(None, [side_file(path)]))


def stored_bytes(path: str | PathLike) -> int:
    """Bytes of the files of the model at `path`."""
    return sum(part.stat().st_size for part in files_of(path))


def _pages(size: int) -> int:
    """`size` rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def _contents(tensors: list[Initializer]) -> Iterator[bytes | memoryview]:
    """What a side file holds: the contents, each filled up to whole pages."""
    for tensor in tensors:
        yield tensor.content.data
        yield bytes(_pages(tensor.size) - tensor.size)
