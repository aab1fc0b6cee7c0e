"""What a run leaves beside the network itself: files of its data, and other networks of the trained one's parts."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

import qat
from qat.emitters import export_all
from qat.files import write_whole
from qat.models.module import Companion
from qat.report.files import INTEGER


def deliver_companions(
    trained: nn.Module,
    companions: Mapping[str, Companion],
    run_dir: Path,
    runtimes: Iterable[str],
    nonlinear: str,
) -> None:
    """Convert and export `companions` with the quantizers of the prepared network `trained`, each into a folder.

    What one run of a companion hands to the next is codes in its file. Raises `QATError` where one cannot be made.
    """
    for name, companion in companions.items():
        folder = run_dir / INTEGER / name
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run: half of it would not fit the other half
        handle = qat.prepare_alike(companion.network, companion.example_inputs, trained)
        try:
            program = qat.convert(companion.network).with_integer_edges(*companion.state)
        finally:
            handle.remove()
        program.save(folder)
        export_all(program, folder, runtimes, nonlinear=nonlinear)


def write_files(files: Mapping[str, bytes], run_dir: Path) -> None:
    """Write what belongs beside the exported network, by name."""
    for name, content in files.items():
        write_whole(run_dir / INTEGER / name, content)
