"""A small finished run: what its files hold, and a directory with them."""

import json

import pytest
import torch

from qat.integer.program import (
    Grid,
    Input,
    IntegerProgram,
    Linear,
    Multiplier,
    Output,
    Value,
    Weight,
    WeightGrid,
    float32,
)


@pytest.fixture
def report_data() -> dict:
    return {
        "recipe": "digits_cnn",
        "seed": 1,
        "epochs": 6,
        "split": "test",
        "metrics": {"float": {"accuracy": 0.9889}, "fake_quant": {"accuracy": 0.9861}, "integer": {"accuracy": 0.9861}},
        "size_bytes": {"float": 8000, "integer": 2000},
        "float_ops": [],
        "mismatches": {
            "onnxruntime": {"differing": 0, "total": 3600, "max_lsb": 0},
            "fake_quant": {"differing": 2, "total": 3600, "max_lsb": 1},
        },
        "latency_ms": {"float": 0.08, "integer": 0.04},
        "conditions": {"threads": 1, "cpu": "avx512_vnni"},
        "layers": [
            {
                "name": "stem",
                "kind": "Conv",
                "weight_bits": 8,
                "activation_bits": 8,
                "weights": 100,
                "bytes": 100,
                "sqnr_db": 41.0,
                "activation_sqnr_db": 38.0,
                "clip_share": 0.001,
            },
            {
                "name": "head",
                "kind": "Linear",
                "weight_bits": 4,
                "activation_bits": 8,
                "weights": 300,
                "bytes": 150,
                "sqnr_db": 19.5,
                "activation_sqnr_db": 36.0,
                "clip_share": 0.0,
            },
        ],
    }


@pytest.fixture
def history_data() -> dict:
    phases = ("float", "quantize", "quantize", "frozen", "final", "final")
    widths = (None, 8, 6, 4, 4, 4)
    return {
        "epochs": [
            {
                "epoch": epoch,
                "step": 10 * (epoch + 1),
                "phase": phase,
                "weight_bits": bits,
                "activation_bits": None,
                "learning_rate": 0.01 / (epoch + 1),
                "metrics": {
                    "train/loss": 2.0 - 0.3 * epoch,
                    "val/loss": 2.1 - 0.3 * epoch,
                    "val/accuracy": 0.1 * epoch,
                },
                "layers": {} if bits is None else {"head.weight": {"sqnr_db": 5.0 * bits, "clip_share": 0.01}},
            }
            for epoch, (phase, bits) in enumerate(zip(phases, widths, strict=True))
        ]
    }


@pytest.fixture
def tiny_program() -> IntegerProgram:
    """One 4-bit linear layer `head` of two outputs and three inputs; weight scales 0.5 and 0.25, 16 steps a code."""
    grid = Grid(scale=0.5, zero_point=0, quant_min=0, quant_max=255)
    weight = Weight(
        codes=torch.tensor([[-7, 0, 7], [1, 2, 3]], dtype=torch.int8),
        grid=WeightGrid(bits=4, step=16),
        scale=torch.tensor([0.5, 0.25]),
    )
    linear = Linear(
        name="linear_0",
        source="head",
        inputs=("x",),
        output="y",
        clamp_min=0,
        clamp_max=255,
        weight=weight,
        bias=torch.zeros(2, dtype=torch.int32),
        multiplier=Multiplier.from_scales(grid.scale, weight.scale, float32(0.5)),
    )
    return IntegerProgram(
        inputs=(Input("image", "x"),),
        outputs=(Output("logits", "y"),),
        values=(Value("x", (3,), grid), Value("y", (2,), grid)),
        operations=(linear,),
    )


@pytest.fixture
def run_dir(tmp_path, report_data, history_data, tiny_program):
    """A run's directory with all its files."""
    integer = tmp_path / "run" / "integer"
    integer.mkdir(parents=True)
    (integer / "report.json").write_text(json.dumps(report_data))
    (integer / "history.json").write_text(json.dumps(history_data))
    tiny_program.save(integer)
    return tmp_path / "run"
