"""What `runtimes_table.py` measures: the file of one run for one runtime, on the whole test split."""

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig

import qat
from qat.cli import parts
from qat.cli.run import SPLIT
from qat.emitters import emitter_of, files_of, runtime_named
from qat.emitters.refused import RefusedError, grouped
from qat.errors import QATError
from qat.files import write_whole
from qat.integer.program import IntegerProgram
from qat.integer.storage import digest
from qat.report.files import INTEGER


@dataclass(frozen=True)
class Cell:
    """One run in one runtime.

    program, file: digests of what was measured. refusal: why there is no file, and everything else is then empty.
    reasons: (problem, remedy) of what the runtime refuses, the same whichever layers have it.
    bytes: see `bytes_of`. differing, codes, largest: output codes that are not the
    interpreter's, of how many, and by how much at most. float_ops: operations that the file computes in floating point.
    milliseconds, float_milliseconds: of one sample, medians in turn; None where the runtime has no float file.
    metrics: of the file. conditions: what the figures hold for. limit: how many samples of the test split were run at
    most, None for all.
    """

    program: str
    file: str = ""
    refusal: str | None = None
    reasons: Sequence[Sequence[str]] = ()
    bytes: int = 0
    differing: int = 0
    codes: int = 0
    largest: int = 0
    float_ops: int = 0
    milliseconds: float | None = None
    float_milliseconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None

    @property
    def latency_ratio(self) -> float | None:
        """Float over integer: above 1 the integer file is faster."""
        if self.milliseconds is None or self.float_milliseconds is None:
            return None
        return self.float_milliseconds / self.milliseconds


class Remembered(IntegerProgram):
    """A program that runs each batch once: all files are compared with the same results.

    Set `kept` to a folder to find the results of earlier calls there, by the digest of the program.
    """

    kept: ClassVar[Path | None] = None

    def __call__(self, inputs):
        seen = self.__dict__.setdefault("_seen", None)
        path = None if self.kept is None else self.kept / f"{self._digest}.pt"
        if seen is None:
            seen = torch.load(path, weights_only=True) if path is not None and path.exists() else {}
            self.__dict__["_seen"] = seen
        key = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in inputs.values())).hexdigest()
        if key not in seen:
            seen[key] = super().__call__(inputs)
            if path is not None:
                stream = io.BytesIO()
                torch.save(seen, stream)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, stream.getvalue())
        return seen[key]

    @property
    def _digest(self) -> str:
        if "_known_digest" not in self.__dict__:
            self.__dict__["_known_digest"] = digest(self)
        return self.__dict__["_known_digest"]


class Run:
    """A finished run, opened once for all of its cells.

    folder: as qat-train leaves it. data: folder of its data, if that lies elsewhere now. limit: see `Cell`.
    """

    def __init__(self, folder: Path, data: str | None = None, limit: int | None = None):
        self.folder, self.limit = folder, limit
        self.config: DictConfig = parts.saved_config(folder)
        if data is not None and "dir" in self.config.data:
            self.config.data.dir = data
        if limit is not None:
            self.config.data.limit = limit
        loaded = IntegerProgram.load(folder / INTEGER)
        self.program = Remembered(**{entry.name: getattr(loaded, entry.name) for entry in dataclasses.fields(loaded)})
        self.digest = digest(loaded)
        self._data = None

    @property
    def network(self) -> str:
        """The class of the network."""
        return self.config.model.network._target_.rpartition(".")[2]

    @property
    def bits(self) -> str:
        """Such as "w4a8"; told apart from the same widths with activations on both sides of 0."""
        quant = parts.quant_of(self.config)
        return quant.name + (", symmetric" if quant.activation.symmetric else "")

    @property
    def training(self) -> str:
        """How the weights came to their grids."""
        if self.config.get("post_training") is not None:
            return "post-training"
        return f"{self.config.trainer.max_epochs} epochs"

    @property
    def weight_bytes(self) -> float:
        """What all weights take at their width: bits x weights / 8."""
        return sum(layer.weight_bits * layer.weight_count for layer in self.program.layers if layer.weight_bits) / 8

    def cell(
        self, runtime: str, known: Cell | None, keep_file: bool = False, times: bool = False, repeats: int = 30
    ) -> Cell:
        """Export for `runtime`, and measure on the test split unless `known` is of the same program and file.

        keep_file: measure the file that lies in the run's folder, where there is one. times: measure the latency of
        what is known again.
        """
        path = self.folder / INTEGER / runtime_named(runtime).file
        try:
            emitter_of(runtime)
            if not (keep_file and path.exists()):
                pages = {"image_scaling": parts.data_of(self.config).image_scaling} if runtime == "web" else {}
                qat.export(self.program, path, runtime=runtime, **pages)
            file = sha256(*files_of(runtime, path))
            if known is not None and known.refusal is None and self._holds(known, file):
                return self._timed(runtime, path, known, repeats) if times else known
            return self._measured(runtime, path, file, repeats)
        except RefusedError as error:
            reasons = [list(first.reason) for first, *_ in grouped(error.refusals)]
            return Cell(self.digest, refusal=str(error), reasons=reasons)
        except QATError as error:
            return Cell(self.digest, refusal=str(error))
        except Exception as error:  # the other cells are worth having
            return Cell(self.digest, refusal=f"fails with {type(error).__name__}: {str(error).splitlines()[0][:300]}")

    def _holds(self, known: Cell, file: str) -> bool:
        """Whether a cell is of this program and file, and of no fewer samples than are asked for."""
        enough = known.limit is None or (self.limit is not None and known.limit >= self.limit)
        return (known.program, known.file) == (self.digest, file) and enough

    def _measured(self, runtime: str, path: Path, file: str, repeats: int) -> Cell:
        data, metrics = self._test_split()
        report = qat.verify(self.program, path, data, metrics=metrics, runtime=runtime, repeats=repeats)
        entry = report.files[runtime]
        return Cell(
            program=self.digest,
            file=file,
            bytes=bytes_of(runtime, path, entry.bytes),
            differing=entry.mismatch.differing,
            codes=entry.mismatch.total,
            largest=entry.mismatch.max_lsb,
            float_ops=len(entry.float_ops),
            milliseconds=entry.latency_ms.get("integer"),
            float_milliseconds=entry.latency_ms.get("float"),
            metrics=dict(entry.metrics),
            conditions={name: str(value) for name, value in entry.conditions.items()},
            limit=self.limit,
        )

    def _timed(self, runtime: str, path: Path, known: Cell, repeats: int) -> Cell:
        """`known` with the latency as it is now."""
        batches, _ = self._test_split()
        report = qat.verify(self.program, path, itertools.islice(batches, 1), runtime=runtime, repeats=repeats)
        entry = report.files[runtime]
        return dataclasses.replace(
            known,
            milliseconds=entry.latency_ms.get("integer"),
            float_milliseconds=entry.latency_ms.get("float"),
            conditions={name: str(value) for name, value in entry.conditions.items()},
        )

    def float_metrics(self) -> dict[str, float]:
        """Those of the float weights that training began with; empty where the run's folder does not lead to them."""
        checkpoint = self.config.model.get("checkpoint")
        if checkpoint is None or not Path(checkpoint).exists():
            return {}
        network = parts.model_of(self.config).network.eval()
        batches, metrics = self._test_split()
        with torch.no_grad():
            for inputs, targets in batches:
                outputs = network(inputs)
                for metric in metrics.values():
                    metric.update(outputs, targets)
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    def _test_split(self):
        """(loader of the test split, fresh metrics by name)."""
        if self._data is None:
            self._data = parts.data_of(self.config)
            self._data.setup(SPLIT)
        config = self.config.copy()
        config.model.checkpoint = None
        return self._data.test_dataloader(), parts.model_of(config).test_metrics()


def bytes_of(runtime: str, path: Path, total: int) -> int:
    """What a file takes where it runs. total: of it and all it needs beside it.

    Of C source the constants in flash, as the header states them, without the code; of a page the model in it, without
    the runtime.
    """
    if runtime == "c":
        return emitter_of(runtime).footprint(path).constants
    if runtime == "web":
        return sum(model.stat().st_size for model in path.glob("*.onnx"))
    return total


def sha256(*paths: Path) -> str:
    """Of the contents of files, one after the other."""
    hashed = hashlib.sha256()
    for path in paths:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
