"""Norms, softmax and division of integer operators: `Exported.differing` counts codes that are not the program's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qat.emitters.litert as emitter
from qat.emitters.litert import refusals
from qat.integer.builder import ProgramBuilder
from qat.integer.operations.choices import MASK_GRID
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, float32

BYTE, TARGET = Grid(float32(0.02), 117, 0, 255), Grid(float32(0.03), 128, 0, 255)
SHARE = Grid(float32(1 / 255), 0, 0, 255)
KINDS = {"centered": {}, "rms": {"centered": False}, "l2": {"centered": False, "l2": True}}


@st.composite
def grids(draw, low=-3.0, high=1.0):
    bits, signed = draw(st.sampled_from([8, 8, 4, 2])), draw(st.booleans())
    first = -(2 ** (bits - 1)) if signed else 0
    last = first + 2**bits - 1
    return Grid(float32(10 ** draw(st.floats(low, high))), draw(st.integers(first, last)), first, last)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(), grids(), grids(-2.5, 0.0), st.lists(st.sampled_from([1, 2, 3, 8, 17]), min_size=1, max_size=4),
    st.sampled_from(sorted(KINDS)), st.sampled_from([0.0, 1e-12, 1e-5, 10.0]),
)  # fmt: skip
def test_every_norm_over_any_dimensions(export, data, source, target, shape, kind, epsilon):
    dims = data.draw(st.sets(st.integers(1, len(shape)), min_size=1))
    sizes = [size if data.draw(st.booleans()) else 1 for size in shape]
    gain, shift = torch.randn(sizes) * 10 ** data.draw(st.floats(-2, 1)), torch.randn(sizes)
    parts = {"epsilon": epsilon, "gain": gain, "shift": shift, **KINDS[kind]}
    found = export(lambda b, x: b.normalize("n", x, tuple(sorted(dims)), target, **parts), tuple(shape), source)
    assert found.differing((1, 5)) == 0


def test_a_layer_norm_has_few_operators_and_no_row_by_itself(export):
    found = export(lambda b, x: b.normalize("n", x, (2,), TARGET, gain=torch.randn(192)), (65, 192))
    assert found.differing() == 0
    passes = [each for each in emitter.operations(found.path) if each.dtype == "int32"]
    assert len(found.kinds) <= 130 and len(passes) < 30 and "FLOOR_DIV" in found.kinds


@pytest.mark.parametrize("kind", ["centered", "rms"])
def test_a_norm_over_many_elements_is_computed_in_int64(export, kind):
    gain = torch.randn(3, 1, 1)
    parts = {"gain": gain, "shift": torch.randn(3, 1, 1), **KINDS[kind]}
    found = export(lambda b, x: b.normalize("n", x, (1, 2, 3), TARGET, **parts), (3, 80, 81))
    assert found.differing((1, 3)) == 0
    types = {(each.kind, each.dtype) for each in emitter.operations(found.path)}
    assert ("FLOOR_MOD", "int64") in types and not any(each == "DIV" for each, _ in types)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_norms_of_16_bit_codes(export, kind):
    wide, target = (Grid(float32(scale), 0, -(2**15) + 1, 2**15 - 1) for scale in (1e-4, 3e-4))
    parts = {"gain": torch.randn(48), "shift": torch.randn(48), **KINDS[kind]}
    found = export(lambda b, x: b.normalize("n", x, (2,), target, **parts), (5, 48), wide)
    assert found.differing() == 0


def test_a_norm_behind_a_convolution_stays_in_its_layout(export):
    def write(b, x):
        return b.normalize("n", b.max_pool("m", x, (2, 2)), (1,), TARGET, gain=torch.randn(4, 1, 1))

    found = export(write)
    # those of the edges
    assert found.differing() == 0 and found.kinds.count("TRANSPOSE") == 2


def test_a_norm_over_too_many_elements_is_refused_with_its_numbers():
    builder = ProgramBuilder()
    wide = builder.normalize("n", builder.input("x", (2900, 2900), BYTE), (1, 2), TARGET, module="norm")
    builder.output("y", wide)
    (found,) = map(str, refusals(for_runtime(builder.build(), "litert")))
    assert "a row has 8410000 of 8 bits" in found and "norm" in found
    assert "normalize fewer elements together, or export for onnxruntime" in found


@pytest.mark.parametrize("size", [7, 1100])
@pytest.mark.parametrize("mask", ["input", "constant", "row"])
def test_softmax_with_a_mask(export, size, mask):
    """A sample with no element that takes part, and more elements than sums in int32 have, are among them."""
    shape = (3, size) if mask == "row" else (1, size)
    constant = torch.randint(0, 2, shape).to(MASK_GRID.dtype)
    constant[..., 0, :] *= mask == "row"

    def write(b, x):
        name = "m" if mask == "input" else b.constant("m", constant, MASK_GRID)
        return b.softmax("s", x, 2, SHARE, mask=name)

    found = export(write, (3, size), extra={"m": (shape, MASK_GRID)} if mask == "input" else None)
    assert found.differing() == 0


@pytest.mark.parametrize(("shape", "dim"), [((10,), 1), ((5, 3, 4), 1), ((2, 1500), 2)])
@pytest.mark.parametrize("scale", [0.02, 0.4])
def test_the_logarithm_of_a_softmax(export, shape, dim, scale):
    target = Grid(float32(scale), 240, 0, 255)
    found = export(lambda b, x: b.log_softmax("s", x, dim, target), shape, Grid(float32(0.07), 3, 0, 255))
    assert found.differing() == 0
    assert "LOG_SOFTMAX" not in found.kinds


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grids(), grids(), grids(-2.0, 2.0), st.sampled_from(["value", "divisor", "numerator"]))
def test_one_value_over_another(export, first, second, target, kind):
    def write(b, x):
        codes = torch.randint(second.quant_min, second.quant_max + 1, (4, 1, 6)).to(second.dtype)
        other = "z" if kind == "value" else b.constant("z", codes, second)
        return b.divide("d", *((other, x) if kind == "numerator" else (x, other)), target)

    found = export(write, grid=first, extra={"z": ((4, 6, 1), second)} if kind == "value" else None)
    assert found.differing() == 0


def test_a_division_by_hand(export):
    """7 / 2 and -7 / 2 are halfway between two codes and go away from zero; 0 as a divisor is 1."""
    unit = Grid(1.0, 0, -128, 127)
    divisor = torch.tensor([2, 2, 0, -2], dtype=torch.int8)
    found = export(lambda b, x: b.divide("d", x, b.constant("z", divisor, unit), unit), (4,), unit)
    results = emitter.run_session(found.session, {"x": torch.tensor([[7.0, -7.0, 5.0, 7.0]])})
    assert results["y"].tolist() == [[4, -4, 5, -4]]


def test_the_float_network_normalizes_and_masks_real_numbers(tmp_path):
    gain, shift = torch.randn(6), torch.randn(6)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1]]).to(MASK_GRID.dtype)
    builder = ProgramBuilder()
    normal = builder.normalize("n", builder.input("x", (4, 6), BYTE), (2,), TARGET, gain=gain, shift=shift)
    builder.output("y", builder.softmax("s", normal, 2, SHARE, mask=builder.constant("m", mask, MASK_GRID)))
    emitter.emit_float(builder.build(), tmp_path / "float.tflite")
    x = torch.randn(3, 4, 6)
    results = emitter.run_session(emitter.open_session(tmp_path / "float.tflite"), {"x": x})
    scores = F.layer_norm(x, (6,), gain, shift).masked_fill(mask == 0, -torch.inf)
    assert torch.allclose(results["y"], scores.softmax(-1), atol=1e-4)
