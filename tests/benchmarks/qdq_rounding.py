"""Codes that a QDQ file of TensorRT's usual form gets wrong, beside those of `qat.emitters.tensorrt`.

The usual form dequantizes activations and weights to the real numbers they stand for, so that float32 rounds every
product; ours to the codes themselves, whose products and sums are whole numbers. Both layers run on the same codes.

    python tests/benchmarks/qdq_rounding.py
"""

import tempfile
from pathlib import Path

import torch
from torch.nn import functional

import qat
from qat.emitters.onnxruntime.islands import IslandCodes
from qat.emitters.samples import random_inputs
from qat.emitters.tensorrt import LayerComparison, emit
from qat.emitters.tensorrt.check import differences
from qat.integer.interpreter import named_inputs, quantize_inputs, run
from qat.integer.operations import Conv, Linear, Operation
from qat.integer.program import IntegerProgram
from qat.integer.reals import dequantize, quantize
from qat.models.resnet20 import ResNet20

SAMPLES = 20


def usual(operation: Operation, program: IntegerProgram, codes: dict[str, torch.Tensor]) -> torch.Tensor:
    """Codes of a layer that computes with real numbers: dequantize, multiply, add the bias, quantize."""
    source, target = program.value(operation.inputs[0]).grid, program.value(operation.output).grid
    weight, scale = operation.weight, operation.weight.scale
    real = weight.kernel * scale.reshape(-1, *[1] * (weight.codes.dim() - 1))
    bias = operation.bias * (scale * source.scale)
    values = dequantize(codes[operation.inputs[0]], source)
    if isinstance(operation, Linear):
        sums = functional.linear(values, real, bias)
    else:
        (above, _), (left, _) = operation.padding
        sums = functional.conv2d(
            values, real, bias, operation.stride, (above, left), operation.dilation, operation.groups
        )
    return quantize(sums, target).clamp(operation.clamp_min, operation.clamp_max)


def main() -> None:
    torch.manual_seed(0)
    network = ResNet20()
    qat.prepare(network, torch.randn(8, 3, 32, 32), quant="w8a8", target="tensorrt")
    for _ in range(3):
        network(torch.randn(8, 3, 32, 32))
    program = qat.convert(network.eval())
    found = {"usual": IslandCodes(), "qat": IslandCodes()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        emit(program, path)
        compared = LayerComparison(program, path)
        for inputs in random_inputs(program, sizes=(SAMPLES,)):
            codes = run(program, quantize_inputs(program, named_inputs(program, inputs)))
            layers = [operation for operation in program.operations if isinstance(operation, Conv | Linear)]
            for operation in layers:
                found["usual"] += differences(usual(operation, program, codes), codes[operation.output])
            of_layers = compared(inputs)
            for operation in layers:
                found["qat"] += of_layers[operation.name]
    for name, entry in found.items():
        print(f"{name}: {entry}, {entry.differing / entry.total * 1e6:.1f} of a million")


if __name__ == "__main__":
    main()
