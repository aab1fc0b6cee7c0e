"""Seconds and memory that a ViT-B/16 takes from a float network to a checked integer file.

    taskset -c 0,1 python tests/benchmarks/bench_vit_b16.py

86 million random parameters, images of 224 x 224, 1,000 classes, w8a8; ranges observed on one batch of two.
"""

import resource
import tempfile
import time
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification

import qat
from qat.schedule import QuantState


def main() -> None:
    """Print what each stage takes."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = ViTForImageClassification(ViTConfig(num_labels=1000)).eval()
    images = {"pixel_values": torch.randn(2, 3, 224, 224)}
    clock = time.perf_counter
    started = clock()
    handle = qat.prepare(network, images)
    prepared = clock()
    handle.set_state(QuantState(observe=True, fake_quantize=False))
    with torch.no_grad():
        network.train()(**images)
    network.eval()
    handle.set_state(
        QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)
    )
    observed = clock()
    program = qat.convert(network)
    converted = clock()
    with tempfile.TemporaryDirectory() as folder:
        qat.export(program, Path(folder) / "model.onnx")
    exported = clock()
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"prepare {prepared - started:.1f} s, convert {converted - observed:.1f} s, export {exported - converted:.1f} s"
    )
    print(f"{len(program.operations)} operations, at most {gibibytes:.2f} GiB")


if __name__ == "__main__":
    main()
