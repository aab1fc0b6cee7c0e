"""Which networks come out as integers: every one of them through the whole flow, into docs/coverage.md.

    python tests/coverage/table.py              # all of them, and the document
    python tests/coverage/table.py ViT "GPT-2"  # these alone, printed

Every row runs in a process of its own, for at most `--limit` seconds.
"""

import argparse
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from row import NETWORKS, Row, measure

_HERE = Path(__file__).resolve().parent
DOCUMENT = _HERE.parents[1] / "docs" / "coverage.md"
_PACKAGES = {"torch": "torch", "ONNX Runtime": "onnxruntime", "transformers": "transformers"}

_HEAD = """\
# Networks that come out as integers

Written by `python tests/coverage/table.py`, on {machine}. Every row is one network, as it is in its library or in
`tests/coverage/networks_written.py`, small and with random weights, none of them zero, and batch norms settled on 4
batches: two training steps under `qat.QATCallback("w8a8")`, then conversion, export to ONNX Runtime and verification on
6 samples in batches of 3.

* ops: integer operations of the program; float: operations that ONNX Runtime computes in float.
* runtime: output codes of ONNX Runtime that differ from the reference interpreter's; eval: those of the fake-quantized
  network in eval mode; both of the same number of codes.
* eval dB, float dB: signal to quantization noise of the integer outputs against the fake-quantized network and against
  the float network (random weights, two steps: no measure of a trained network), of the worst output.
* length: lengths of sequences that the file takes, where it takes more than the recorded one. At the shortest, at one
  between and at a longer one than recorded, the runtime was compared with the interpreter on random codes, and the
  eval forward with the program at one between.
* ms: one sample in one thread, the integer file and the float network behind it as a file, side by side.

{passed} of {total} networks are computed with integers alone, equal on every code.

"""


def main() -> int:
    """Measure the rows that were asked for; 0 if all of them pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="rows to run; all by default")
    parser.add_argument("--limit", type=float, default=180, help="seconds for one row")
    parser.add_argument("--workers", type=int, default=1, help="rows that run at the same time; milliseconds need 1")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; choose from {', '.join(NETWORKS)}")
    rows = measured_apart(arguments.names or NETWORKS, arguments.limit, arguments.workers)
    if arguments.names:
        print(table(rows))
    else:
        DOCUMENT.write_text(document(rows))
    return 0 if all(row.passes for row in rows) else 1


def measured_apart(names: Iterable[str], limit: float, workers: int = 1) -> list[Row]:
    """The rows of `names`, each measured in a process of its own for at most `limit` seconds."""
    names = list(names)
    # the server imports torch once and forks a process for every row; it is alone in that, so forking is safe
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["row", "qat.callback", "qat.lowering.convert", "onnxruntime"])
    with Progress(console=Console(stderr=True)) as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("networks", total=len(names))

        def measured(name: str) -> Row:
            progress.update(task, description=name)
            row = _measured_apart(context, name, limit)
            progress.advance(task)
            if not progress.console.is_terminal:  # in a log the bar shows at the end only
                progress.console.print(f"{name}: {'passes' if row.passes else row.reason or 'differs'}", soft_wrap=True)
            return row

        return list(pool.map(measured, names))


def _measured_apart(context, name: str, limit: float) -> Row:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_row, args=(name, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if receiver.poll(limit):
            return Row.from_json(receiver.recv())
        return Row(name, "export", f"it took longer than {limit:g} seconds")
    except EOFError:
        process.join()
        return Row(name, "export", f"its process ended with {process.exitcode}")
    finally:
        process.kill()


def _send_row(name: str, sender) -> None:
    sender.send(measure(name).to_json())


def document(rows: list[Row]) -> str:
    """docs/coverage.md."""
    versions = ", ".join(f"{name} {version(package)}" for name, package in _PACKAGES.items())
    machine = f"{platform.machine()} with {os.cpu_count()} cores, {versions}"
    return _HEAD.format(machine=machine, passed=sum(row.passes for row in rows), total=len(rows)) + table(rows)


def table(rows: list[Row]) -> str:
    """The rows in Markdown, those that fail below with their sentences."""
    lines = [
        "| network | ops | float | runtime | eval | codes | length | eval dB | float dB | integer ms | float ms |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_line(row) for row in rows if row.stage is None]
    failed = [row for row in rows if row.stage is not None]
    if failed:
        lines += [
            "",
            "## Rows that fail",
            "",
            "| network | stage | trains without a target | reason |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {row.name} | {row.stage} | {_yes_or_no(row.trains)} | {row.reason.replace('|', '/')} |".replace(
                "\n", " "
            )
            for row in failed
        ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    floats = ", ".join(sorted(set(row.float_ops))) or "0"
    cells = (
        row.name, row.operations, floats, row.differing, row.fake_quant_differing, row.codes, ", ".join(row.lengths),
        _decibels(row.fake_quant_db), _decibels(row.float_db), f"{row.integer_ms:.2f}", f"{row.float_ms:.2f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _decibels(ratio: float) -> str:
    return "equal" if ratio == float("inf") else f"{ratio:.1f}"


def _yes_or_no(trains: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[trains]


if __name__ == "__main__":
    sys.exit(main())
