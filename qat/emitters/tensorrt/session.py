"""ONNX Runtime on a QDQ file with optimizations off: what its nodes say, one by one, on a machine without TensorRT."""

import importlib.metadata
from os import PathLike
from pathlib import Path

import onnxruntime

from qat.emitters.onnxruntime.session import runtime_version
from qat.errors import ExportError


def session_conditions() -> dict[str, object]:
    """What the numbers of a file hold for; part of a report."""
    return {
        "onnxruntime": runtime_version(),
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


def open_session(path: str | PathLike, threads: int = 1):
    """A CPU session that computes the nodes of the file as they stand.

    Raises `ExportError` for a file that is missing, damaged, or none for ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base of their own
        reason = str(error).rpartition(" : ")[2].strip().partition("\n")[0][:200]
        raise ExportError(f"ONNX Runtime cannot load {path} ({reason}); export the program again.") from error
