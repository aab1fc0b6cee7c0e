"""What it costs a file to take raw pictures instead of normalized numbers.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_image_input.py [--seconds 3]

A ResNet-20 for 32 x 32 and a MobileNetV2 for 224 x 224 pictures, random weights, a batch of 1, one thread. Prints
medians of one run in milliseconds, all files run in turn: of real numbers, of the same numbers with what a caller
computes of a picture first (NumPy, float32), of raw pictures in either layout.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy
import torch

import qat
from qat.data.cifar10 import MEAN, STD
from qat.emitters.onnxruntime import open_session
from qat.models.mobilenet_v2 import MobileNetV2
from qat.models.resnet20 import ResNet20

NETWORKS = {"resnet20, 32 x 32": (ResNet20, 32), "mobilenet_v2, 224 x 224": (MobileNetV2, 224)}


def report(name: str, seconds: float) -> None:
    """One line of a network."""
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    program = qat.quantize(make().eval(), [torch.randn(4, 3, size, size)], quant="w8a8")
    forms = {
        "real": program,
        "picture": program.with_image_input(MEAN, STD),
        "channels last": program.with_image_input(MEAN, STD, channels_last=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for index, (form, made) in enumerate(forms.items()):
            qat.export(made, Path(folder) / f"{index}.onnx")
            sessions[form] = open_session(Path(folder) / f"{index}.onnx")
    edge = program.inputs[0].name
    picture = numpy.random.default_rng(0).integers(0, 256, (1, 3, size, size), dtype=numpy.uint8)
    last = numpy.ascontiguousarray(picture.transpose(0, 2, 3, 1))
    mean, std = (numpy.float32(numbers).reshape(3, 1, 1) for numbers in (MEAN, STD))
    real = (picture.astype(numpy.float32) / numpy.float32(255) - mean) / std

    def normalized():
        return (picture.astype(numpy.float32) / numpy.float32(255) - mean) / std

    runs = {
        "real": lambda: sessions["real"].run(None, {edge: real}),
        "normalized by the caller": lambda: sessions["real"].run(None, {edge: normalized()}),
        "picture": lambda: sessions["picture"].run(None, {edge: picture}),
        "channels last": lambda: sessions["channels last"].run(None, {edge: last}),
    }
    times: dict[str, list[float]] = {form: [] for form in runs}
    end = time.perf_counter() + seconds * len(runs)
    for count in itertools.count():
        for form, run in runs.items():
            start = time.perf_counter()
            run()
            if count > 4:
                times[form].append((time.perf_counter() - start) * 1000)
        if count > 10 and time.perf_counter() > end:
            break
    medians = ", ".join(f"{form} {statistics.median(found):.3f}" for form, found in times.items())
    print(f"{name}: {medians}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each file")
    arguments = parser.parse_args()
    for network in NETWORKS:
        report(network, arguments.seconds)
