"""Normalization in C."""

import pytest
import torch

from qat.emitters import c
from qat.emitters.c.trial import run_in_process
from qat.integer.builder import ProgramBuilder
from qat.integer.reals import dequantize
from qat.integer.values import Grid, float32

SOURCES = [
    Grid(float32(0.1), 128, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 5, 3, 9),
    Grid(float32(0.001), 11, -32_767, 32_767),
]
TARGETS = [
    Grid(float32(0.03), 140, 0, 255),
    Grid(float32(0.2), -3, -128, 127),
    Grid(float32(0.4), 1, 0, 3),
    Grid(float32(0.0002), 30_000, 0, 65_535),
]
KINDS = [{}, {"centered": False}, {"centered": False, "l2": True}]
CASES = [
    ((96,), (1,), (96,)),
    ((5, 48), (2,), (48,)),
    ((6, 4, 5), (1,), (6, 1, 1)),
    ((6, 4, 5), (2, 3), (6, 1, 1)),
    ((6, 4, 5), (1, 3), (6, 1, 5)),
    ((2, 3, 4, 5), (2, 3, 4), (2, 3, 1, 1)),
    ((3, 1), (2,), (3, 1)),
    ((1, 130, 130), (2, 3), (1, 1, 1)),
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_norm(assert_equal_in_both, source, monkeypatch):
    monkeypatch.setattr(c, "CHECK_SAMPLES", 6)
    generator = torch.Generator().manual_seed(0)

    def write(builder, *sources):
        for place, (x, (_, dims, gains)) in enumerate(zip(sources, CASES, strict=True)):
            gain, shift = (torch.randn(gains, generator=generator) for _ in range(2))
            gain.view(-1)[0] = 0.0
            for number, target in enumerate(TARGETS):
                for letter, kind in zip("abc", KINDS, strict=True):
                    name = f"norm{place}{number}{letter}"
                    yield builder.normalize(name, x, dims, target, gain=gain, shift=shift, **kind)

    shapes = [shape for shape, _, _ in CASES]
    assert_equal_in_both(lambda builder, *sources: list(write(builder, *sources)), shapes, [source] * len(shapes))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_have_no_deviation(tmp_path, kind):
    builder = ProgramBuilder()
    source = SOURCES[1]
    x = builder.input("x", (64,), source)
    for place, epsilon in enumerate((0.0, 1e-30, 1e-5, 1e5)):
        builder.output(f"y{place}", builder.normalize(f"n{place}", x, (1,), TARGETS[0], epsilon=epsilon, **kind))
    program = builder.build("dict")
    c.emit(program, tmp_path / "network.c")
    rows = torch.arange(-128, 128)[:, None].expand(256, 64).clone()
    rows = torch.cat([rows, rows.index_fill(1, torch.tensor([3]), 7)])  # the same with one other element
    real = dequantize(rows.to(torch.int8), source)
    watched = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    actual = run_in_process(tmp_path / "network.c", {"x": real}, watched)
    for name, expected in program(real).items():
        assert torch.equal(actual[name], expected)
