"""Time the fake-quantize kernels at ResNet-20's shapes (CIFAR, batch 128), with two CPU threads, side by side.

    python tests/benchmarks/bench_kernels.py

Prints microseconds of one forward and backward: this package's kernel, `qat.functional`, and torch's own operator.
"""

import statistics
import time

import torch

from qat import functional, kernels

ACTIVATIONS = [(128, 16, 32, 32), (128, 32, 16, 16), (128, 64, 8, 8)]
WEIGHTS = [(16, 16, 3, 3), (32, 32, 3, 3), (64, 64, 3, 3)]
REPETITIONS = 25


def microseconds(forward, x, gradient) -> float:
    """Median time of `forward()` and its backward pass."""
    times = []
    for _ in range(REPETITIONS + 2):
        x.grad = None
        begin = time.perf_counter()
        forward().backward(gradient)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:]) * 1e6


def report(shape, forwards, x) -> None:
    """One line: shape and the time of each form."""
    gradient = torch.randn(shape)
    times = (microseconds(forward, x, gradient) for forward in forwards)
    print(f"{str(shape):20}", *(f"{time:8.0f}" for time in times), flush=True)


def observed_activation(shape) -> None:
    """Unsigned 8 bits, one scale."""
    x = torch.randn(shape).relu_().requires_grad_()
    grid = (torch.tensor(0.02), torch.tensor(0, dtype=torch.int32), 0, 255)
    report(
        shape,
        [
            lambda: kernels.fake_quantize(x, *grid, False, None),
            lambda: functional.fake_quantize(x, *grid),
            lambda: torch.fake_quantize_per_tensor_affine(x, *grid),
        ],
        x,
    )


def learned_activation(shape) -> None:
    """Unsigned 4 bits, one learned scale."""
    x = torch.randn(shape).relu_().requires_grad_()
    scale, vector = (torch.nn.Parameter(torch.full(size, 0.2)) for size in ((), (1,)))
    report(
        shape,
        [
            lambda: kernels.fake_quantize_learned(x, scale, torch.tensor(0.0), 0, 15, 0.01, False, None),
            lambda: functional.fake_quantize_learned(x, scale, torch.tensor(0.0), 0, 15, 0.01),
            lambda: torch._fake_quantize_learnable_per_tensor_affine(x, vector, torch.zeros(1), 0, 15, 0.01),
        ],
        x,
    )


def observed_weight(shape) -> None:
    """Symmetric 8 bits, one scale per channel."""
    x = torch.randn(shape, requires_grad=True)
    scale, zero_point = torch.full((shape[0],), 0.02), torch.zeros(shape[0], dtype=torch.int32)
    columns = scale.view(-1, 1, 1, 1), zero_point.view(-1, 1, 1, 1)
    report(
        shape,
        [
            lambda: kernels.fake_quantize(x, scale, zero_point, -127, 127, False, 0),
            lambda: functional.fake_quantize(x, *columns, -127, 127),
            lambda: torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, -127, 127),
        ],
        x,
    )


def learned_weight(shape) -> None:
    """Symmetric 4 bits, one learned scale per channel."""
    x = torch.randn(shape, requires_grad=True)
    scale, zero_point = torch.nn.Parameter(torch.full((shape[0],), 0.2)), torch.zeros(shape[0])
    report(
        shape,
        [
            lambda: kernels.fake_quantize_learned(x, scale, zero_point, -7, 7, 0.01, False, 0),
            lambda: functional.fake_quantize_learned(
                x, scale.view(-1, 1, 1, 1), zero_point.view(-1, 1, 1, 1), -7, 7, 0.01
            ),
            lambda: torch._fake_quantize_learnable_per_channel_affine(x, scale, zero_point, 0, -7, 7, 0.01),
        ],
        x,
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    for bench, shapes in (
        (observed_activation, ACTIVATIONS),
        (learned_activation, ACTIVATIONS),
        (observed_weight, WEIGHTS),
        (learned_weight, WEIGHTS),
    ):
        print(f"{bench.__name__.replace('_', ' '):20}  kernels functional torch")
        for shape in shapes:
            bench(shape)
