"""Every function that a float island may hold, in a file beside the interpreter."""

import logging
import re

import pytest
import torch

from qat.emitters.onnxruntime import emit, emit_float, float_ops, islands_in, open_session, run_session
from qat.integer.builder import ProgramBuilder
from qat.integer.float_functions import FLOAT_FUNCTIONS
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, float32

FIRST, SECOND = Grid(float32(0.0213), 11, -128, 127), Grid(float32(0.031), 100, 0, 255)


def constant(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)) * 0.5


#: Function -> shapes of its values, constants by name, arguments.
CASES = {
    **dict.fromkeys(
        """relu relu6 silu sigmoid tanh exp square abs neg sin cos erf mish hardswish hardsigmoid reciprocal softplus
        gelu elu leaky_relu log sqrt rsqrt""".split(),
        ([(4, 6)], {}, {}),
    ),
    "linear": ([(4, 6)], {"weight": constant(3, 6), "bias": constant(3)}, {}),
    "conv1d": ([(4, 6)], {"weight": constant(2, 2, 3), "bias": constant(2)}, {"groups": 2, "padding": "same"}),
    "conv2d": ([(4, 6, 5)], {"weight": constant(16, 4, 3, 3)}, {"padding": (1, 0), "stride": 2}),
    "conv3d": ([(2, 4, 4, 4)], {"weight": constant(3, 2, 2, 2, 2)}, {"dilation": 2, "padding": "valid"}),
    "conv_transpose1d": (
        [(4, 6)], {"weight": constant(4, 2, 3)}, {"stride": 2, "output_padding": 1, "padding": 1}
    ),
    "conv_transpose2d": ([(4, 6, 5)], {"weight": constant(4, 2, 3, 3), "bias": constant(2)}, {"stride": (2, 1)}),
    "conv_transpose3d": ([(2, 3, 3, 3)], {"weight": constant(2, 2, 2, 2, 2)}, {"dilation": 2}),
    "bilinear": ([(5, 3), (5, 4)], {"weight": constant(2, 3, 4), "bias": constant(2)}, {}),
    **dict.fromkeys(("matmul", "bmm"), ([(4, 6), (6, 5)], {}, {})),
    "mm": ([(6,)], {"other": constant(6, 3)}, {}),
    "layer_norm": ([(4, 6)], {"weight": constant(6), "bias": constant(6)}, {"normalized_shape": (6,)}),
    "rms_norm": ([(4, 6)], {"weight": constant(4, 6)}, {"normalized_shape": (4, 6), "eps": 1e-3}),
    "group_norm": ([(4, 6, 3)], {"weight": constant(4), "bias": constant(4)}, {"num_groups": 2}),
    "instance_norm": ([(4, 6, 3)], {"weight": constant(4), "bias": constant(4)}, {}),
    "batch_norm": (
        [(4, 6, 3)],
        {"running_mean": constant(4), "running_var": constant(4).abs() + 0.1, "weight": constant(4)},
        {"eps": 1e-2},
    ),
    "softmax": ([(4, 6)], {}, {"dim": -1}),
    "log_softmax": ([(4, 6)], {}, {"dim": 1}),
    "hardtanh": ([(4, 6)], {}, {"min_val": -0.5, "max_val": 0.7}),
    "clamp": ([(4, 6)], {}, {"min": -0.5}),
    **dict.fromkeys(
        ("add", "mul", "hypot", "logaddexp", "atan2", "pow", "xlogy"), ([(4, 6), (4, 6)], {}, {})
    ),
    **dict.fromkeys(("sub", "div"), ([(4, 6)], {"other": constant(6)}, {})),
    "rsub": ([(4, 6)], {"other": torch.tensor(1.0)}, {}),
    "cumsum": ([(4, 6)], {}, {"dim": -2}),
    "prod": ([(4, 6)], {}, {"dim": 2}),
    "sum": ([(4, 6)], {}, {"dim": (1, 2)}),
    "mean": ([(4, 6)], {}, {"dim": 1, "keepdim": True}),
    "logsumexp": ([(4, 6)], {}, {"dim": (1,)}),
    "norm": ([(4, 6)], {}, {"dim": -1, "ord": 3.0}),
    "linalg_vector_norm": ([(4, 6)], {}, {"dim": (1, 2)}),
    "linalg_matrix_norm": ([(4, 6)], {}, {"keepdim": True}),
    "cdist": ([(4, 6), (5, 6)], {}, {"p": 1.0}),
    "cross": ([(4, 3), (4, 3)], {}, {"dim": 2}),
    "linalg_cross": ([(4, 3)], {"other": constant(1, 4, 3)}, {}),
    "linalg_vecdot": ([(4, 6), (4, 6)], {}, {}),
    "det": ([(4, 3, 3)], {}, {}),
    "linalg_det": ([(3, 3)], {}, {}),
    "fold": ([(18, 9)], {}, {"output_size": (5, 5), "kernel_size": 3}),
    "grid_sample": (
        [(2, 5, 5), (4, 4, 2)], {}, {"mode": "bicubic", "padding_mode": "reflection", "align_corners": True}
    ),
}  # fmt: skip


def test_every_function_is_tried():
    assert {*CASES} == {*FLOAT_FUNCTIONS}


def program_of(function, merged=0):
    """An island between an input or two and the output, on a grid that holds most of what it makes."""
    shapes, constants, arguments = CASES[function]
    shapes = [(3, *shape) if merged else shape for shape in shapes]
    values = [name for name in FLOAT_FUNCTIONS[function].tensors if name not in constants][: len(shapes)]
    generator = torch.Generator().manual_seed(1)
    reals = {
        name: (torch.rand(6, *shape, generator=generator) * 5 - 2).flatten(0, merged)
        for name, shape in zip(values, shapes, strict=True)
    }
    result = FLOAT_FUNCTIONS[function].compute(reals | constants, arguments)
    largest = result[result.isfinite()].abs().quantile(0.95)
    builder = ProgramBuilder()
    operands = {
        name: builder.input(f"x{place}", shape, FIRST if place == 0 else SECOND)
        for place, (name, shape) in enumerate(zip(values, shapes, strict=True))
    }
    grid = Grid(float32(max(float(largest), 1e-3) / 127), 0, -128, 127)
    builder.output("y", builder.float_island("y", function, operands | constants, grid, arguments, merged))
    return builder.build()


@pytest.mark.parametrize("merged", [0, 1])
@pytest.mark.parametrize("function", CASES)
def test_a_function_is_computed_in_float_and_rounds_as_the_interpreter(tmp_path, caplog, function, merged):
    program, path = program_of(function, merged), tmp_path / "model.onnx"
    with caplog.at_level(logging.INFO, "qat"):
        emit(program, path)
    (differing,) = re.findall(r"program for (\d+) of \d+ codes", caplog.text)
    assert int(differing) <= 2
    assert islands_in(program, path) == ("y",)
    assert not any("Integer" in node or "QLinear" in node for node in float_ops(path))
    emit_float(program, tmp_path / "float.onnx")
    run_session(
        open_session(tmp_path / "float.onnx"),
        {edge.name: torch.ones(2, *program.value(edge.value).shape) for edge in program.inputs},
    )


@pytest.mark.parametrize("merged", [0, 1])
def test_a_masked_softmax_in_float(tmp_path, merged):
    builder = ProgramBuilder()
    operands = {"input": builder.input("x", (5, 5), FIRST), "mask": torch.ones(5, 5).tril(-1)}
    if not merged:
        operands["mask"] = builder.constant("m", torch.ones(5, 5, dtype=torch.uint8).tril(-1), MASK_GRID)
    grid = Grid(float32(1 / 255), 0, 0, 255)
    if merged:
        operands = {"input": operands["input"], "mask": torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])}
    builder.output("y", builder.float_island("y", "softmax", operands, grid, {"dim": -1}, merged))
    program = builder.build()
    emit(program, tmp_path / "model.onnx")
    out = run_session(open_session(tmp_path / "model.onnx"), {"x": torch.zeros(2, 5, 5)})["y"]
    assert torch.equal(out, program(torch.zeros(2, 5, 5)))
    assert bool((out[:, 0] == 0).all()) != bool(merged)
