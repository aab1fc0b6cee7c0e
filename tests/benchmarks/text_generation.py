"""What generates text in a run of a language model: its codes beside the whole network's, and its speed.

python tests/benchmarks/text_generation.py outputs/topics_gpt_w8a8/2025-01-31_12-00-00
"""

import sys
import time
from pathlib import Path

import torch

import qat
from qat.cli import parts
from qat.cli.generate import STEP, reader_of
from qat.report.files import INTEGER

#: Test windows that are read token by token, and tokens whose reading is timed.
WINDOWS, TIMED = 16, 100


def main(run_dir: Path) -> None:
    """Print both figures."""
    torch.set_num_threads(1)
    data = parts.data_of(parts.saved_config(run_dir))
    data.setup("test")
    ids, positions, _ = next(iter(data.test_dataloader()))
    ids, positions = ids[:WINDOWS], positions[:WINDOWS]
    expected = qat.IntegerProgram.load(run_dir / INTEGER)((ids, positions))
    readers = [reader_of(run_dir / STEP) for _ in ids]
    found = torch.stack(
        [
            torch.stack([reader.feed(int(token)) for token in window])
            for reader, window in zip(readers, ids, strict=True)
        ]
    )
    print(f"{int((found != expected).sum())} of {expected.numel()} logits differ from the whole network's")
    reader = reader_of(run_dir / STEP)
    reader.feed(0)
    started = time.perf_counter(), time.process_time()
    for token in ids[0, : min(TIMED, ids.shape[1] - 1)]:
        reader.feed(int(token))
    count = len(reader.seen) - 1
    wall, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{count / wall:.0f} tokens per second in one thread, {count / processor:.0f} of its processor time")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
