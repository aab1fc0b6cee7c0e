"""What cannot be exported is said at once, each problem once."""

import os

import pytest

from qat.emitters import export
from qat.emitters.onnxruntime import refusals
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid

BYTE = Grid(0.5, 128, 0, 255)
WIDE = Grid(0.5, 0, -32768, 32767)


def test_a_program_that_can_be_exported_has_none():
    builder = ProgramBuilder()
    builder.output("y", builder.negate("n", builder.input("x", (4,), BYTE)))
    assert refusals(builder.build()) == []


def refused():
    """A program with a wide input and output, a pool of wide codes and a product that leaves int32."""
    builder = ProgramBuilder()
    x, wide = builder.input("x", (2, 4), BYTE), builder.input("wide", (2, 4), WIDE)
    fine = Grid(2.0**-20, 0, 0, 255)
    builder.output("product", builder.mul("m", x, x, fine))
    builder.output("pooled", builder.max_pool("pool", wide, (2,)))
    return builder.build("dict")


def test_every_reason_is_named_once(tmp_path):
    found = refusals(refused())
    assert sorted((entry.kind, entry.name) for entry in found) == [("Mul", "m"), ("value", "pool"), ("value", "wide")]
    with pytest.raises(ExportError) as raised:
        export(refused(), tmp_path / "model.onnx")
    sentence = str(raised.value)
    assert "Mul 'm': ONNX Runtime computes up to " in sentence and "; look for a range that collapsed" in sentence
    assert (
        "value 'wide' and value 'pool': ONNX Runtime's integer kernels take codes of 8 bits (these are -32768..32767); "
        "quantize its activations to at most 8 bits"
    ) in sentence
    assert os.listdir(tmp_path) == []
