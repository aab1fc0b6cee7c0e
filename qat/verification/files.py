"""One exported file, opened beside the program it was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qat.batches import real_inputs
from qat.emitters import RUNTIMES, emitter_of, latency, stored_bytes
from qat.integer.calls import structured
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.verification.codes import compare
from qat.verification.meters import numbers
from qat.verification.networks import by_name
from qat.verification.report import FileReport, Mismatch


class OpenedFile:
    """Runs a file batch by batch, and keeps what was found.

    program: with the rounding of the file's runtime. meters: the metrics of the file by name.
    """

    def __init__(self, program: IntegerProgram, runtime: str, path: Path, meters: Mapping[str, Any]):
        self.runtime, self.path, self.meters = runtime, path, meters
        self.program = for_runtime(program, runtime)
        self.emitter = emitter_of(runtime)
        self.session = self.emitter.open_session(path)
        self.emitter.check_edges(self.session, self.program, path)
        self._floats = tuple(self.emitter.float_ops(path))
        self._islands = self.emitter.islands_in(self.program, path) if RUNTIMES[runtime].islands else ()
        self._behind_islands = self.emitter.IslandComparison(self.program, path) if self._islands else None
        self._island_codes: Mismatch | None = None
        self._mismatch = Mismatch(0, 0, 0)

    def run(self, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]):
        """Run inputs by name, and compare with what the program gives; returns the outputs in its structure."""
        outputs = self.emitter.run_session(self.session, tensors)
        wanted = expected
        if self._behind_islands is not None:
            codes, wanted = self._behind_islands(tensors)
            found = Mismatch(codes.differing, codes.total, codes.largest)
            self._island_codes = found if self._island_codes is None else self._island_codes + found
        outputs = structured(self.program, outputs)
        self._mismatch += compare(self.program, wanted, by_name(self.program, outputs))
        return outputs

    def report(self, sample: Mapping[str, Tensor], repeats: int) -> FileReport:
        """What was found. sample: one sample by input name, to measure the latency on, in `repeats` runs."""
        samples = {"integer": sample, "float": real_inputs(self.program, sample)}
        measured = repeats and RUNTIMES[self.runtime].runs_here
        return FileReport(
            name=self.path.name,
            bytes=stored_bytes(self.runtime, self.path),
            mismatch=self._mismatch,
            float_ops=self._floats,
            islands=self._islands,
            island_codes=self._island_codes,
            latency_ms=self._latency(samples, repeats) if measured else {},
            metrics=numbers(self.meters),
            conditions=self.emitter.session_conditions()
            | ({"latency": "batch of 1, one thread, float and integer in turn"} if measured else {}),
        )

    def nonlinear_ms(self, sample: Mapping[str, Tensor], repeats: int) -> dict[str, float]:
        """Latency with nonlinear operations as integers and as islands, where the runtime has both."""
        if not repeats or not RUNTIMES[self.runtime].both_forms:
            return {}
        return latency.of_nonlinear(self.emitter, self.program, sample, repeats)

    def _latency(self, samples: Mapping[str, Mapping[str, Tensor]], repeats: int) -> dict[str, float]:
        if RUNTIMES[self.runtime].float_network:
            return latency.beside_float(self.emitter, self.program, self.session, samples, repeats, self.path.name)
        return latency.median_times(self.emitter, {"integer": self.session}, samples, repeats)
