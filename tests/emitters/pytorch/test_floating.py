"""The float network behind a program, as a .pt2 file."""

import torch
from every_operation import program_of_every_operation

from qat.emitters import latency, pytorch
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid, float32


def network():
    """A convolution with a fused relu, and a linear layer."""
    half, scale = torch.arange(72).remainder(16).sub(8).to(torch.int8), torch.full((4,), float32(0.01))
    builder = ProgramBuilder()
    x = builder.input("image", (2, 5, 5), Grid(0.5, 0, 0, 255))
    y = builder.conv("conv", x, Weight(half.reshape(4, 2, 3, 3), WeightGrid(4), scale), Grid(float32(0.2), 0, 0, 255))
    y = builder.mean("mean", y, (2, 3), Grid(float32(0.1), 0, 0, 255))
    head = Weight(half[:12].reshape(3, 4), WeightGrid(4), 20 * scale[:3])
    builder.output("logits", builder.linear("head", y, head, Grid(float32(0.05), 128, 0, 255)))
    return builder.build("dict")


def test_the_float_network_is_what_the_integers_stand_for(tmp_path):
    program, path = network(), tmp_path / "float.pt2"
    pytorch.emit_float(program, path)
    image = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 120
    (found,) = pytorch.run_session(pytorch.open_session(path), {"image": image}).values()
    # half a step of the means, and of what they are of, times weights of up to 8 * 0.2
    assert (found - program(image)["logits"]).abs().max() < 0.15 * 4 * 1.6
    assert found.std() > 0.5


def test_every_operation_has_a_float_form(tmp_path):
    program, path = program_of_every_operation(Grid(float32(0.02), 128, 0, 255)), tmp_path / "float.pt2"
    pytorch.emit_float(program, path)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(2, 4, 8, 8, generator=generator),
        "ids": torch.randint(0, 4, (2, 2), generator=generator),
    }
    found, wanted = pytorch.run_session(pytorch.open_session(path), inputs), program(inputs)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }


def test_the_latency_of_a_file_has_that_of_the_float_network_beside_it(tmp_path):
    program, path = network(), tmp_path / "model.pt2"
    pytorch.emit(program, path)
    sample = {"image": torch.zeros(1, 2, 5, 5)}
    samples = {"integer": sample, "float": sample}
    times = latency.beside_float(pytorch, program, pytorch.open_session(path), samples, 3, "model.pt2")
    assert set(times) == {"integer", "float"} and min(times.values()) > 0
