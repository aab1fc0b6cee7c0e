"""ONNX Runtime on a QDQ file with optimizations off: what its nodes say, one by one, on a machine without TensorRT."""

import importlib.metadata
from os import PathLike

from qat.emitters.onnxruntime import session as onnx_session


def session_conditions() -> dict[str, object]:
    """What the numbers of a file hold for; part of a report."""
    return {
        "onnxruntime": onnx_session.runtime_version(),
        "graph_optimization_level": "ORT_DISABLE_ALL",
        "tensorrt_rtx": tensorrt_version() or "not installed",
        "latency": "not measured: TensorRT runs on NVIDIA GPUs alone, and here ONNX Runtime ran the file",
    }


def tensorrt_version() -> str | None:
    """The version of TensorRT-RTX; None where it is not installed."""
    try:
        return importlib.metadata.version("tensorrt-rtx-cu13")
    except importlib.metadata.PackageNotFoundError:
        return None


def open_session(path: str | PathLike, threads: int = 1, model: bytes | None = None):
    """A CPU session that computes the nodes of the file as they stand.

    model: the content of another model, with the weights that the file at `path` names.
    Raises `ExportError` for a file that is missing, damaged, or none for ONNX Runtime.
    """
    return onnx_session.open_session(path, threads, model=model, optimize=False)
