"""Time the reference interpreter on a w8a8 ResNet-20 (CIFAR), whose every value is an integer tensor.

    python tests/benchmarks/bench_interpreter.py

Prints seconds per 1,000 images, of the clock and of the processor (all threads): the least of several passes; and how
many accumulators `qat.integer.one_rounding` has to list, because rounding twice gives them another code.
Two threads of an AVX512-VNNI machine that others used as well: 4.25 s, 8.44 of the processor, with every code rounded
twice on int64 (`git show a6418fa:qat/integer/kernels.py`); 1.46 s, 2.89 of the processor, since `qat.integer.rescale`.
"""

import time

import torch

import qat
from qat.integer import rescale
from qat.models import ResNet20

IMAGES, PASSES = 256, 7


def main() -> None:
    """Build the program, run it, print the least times."""
    torch.manual_seed(0)
    program = qat.quantize(ResNet20().eval(), [torch.randn(32, 3, 32, 32)])
    images = torch.randn(IMAGES, 3, 32, 32)
    times = []
    for _ in range(PASSES):
        clock, processor = time.perf_counter(), time.process_time()
        program(images)
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    clock, processor = (min(column) * 1000 / IMAGES for column in zip(*times, strict=True))
    made = [fast for operation in program.weighted() for fast in rescale._made.get(operation, {}).values() if fast]
    listed, channels = sum(len(fast.exceptions) for fast in made), sum(len(fast.mantissa) for fast in made)
    print(f"{listed} accumulators listed for {channels} channels")
    print(f"{torch.get_num_threads()} threads: {clock:.2f} s per 1,000 images, {processor:.2f} s of the processor")


if __name__ == "__main__":
    main()
