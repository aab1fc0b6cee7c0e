"""Fixed linear maps along dimensions, against numbers written out by hand and against torch."""

import pytest
import torch
import torch.nn.functional as F

from qat.inject.resampling import Interpolation, Resampling, Stage, matrix_codes, resampling_of
from qat.integer.values import Grid


def applied(resampling, x):
    """The map in float64."""
    for step in resampling.steps:
        x = torch.movedim(torch.movedim(x, step.dim, -1) @ step.matrix.T, -1, step.dim)
    return x * resampling.factor


def test_the_weights_of_a_doubled_row_are_quarters():
    call = Interpolation("linear", (6,), (2.0,), align_corners=False)
    (step,) = call.resampling((3,)).steps
    assert (step.matrix * 4).tolist() == [[4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3], [0, 0, 4]]
    codes, grid = matrix_codes(step.matrix)
    assert grid == Grid(2**-7, 0, 0, 255)
    assert codes.tolist() == [[128, 0, 0], [96, 32, 0], [32, 96, 0], [0, 96, 32], [0, 32, 96], [0, 0, 128]]


def test_rows_keep_their_sum_whatever_is_rounded():
    thirds = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    codes, grid = matrix_codes(thirds)
    assert grid == Grid(2**-9, 0, 0, 255)
    assert codes.tolist() == [[171, 171, 170]]  # of 512
    generator = torch.Generator().manual_seed(0)
    for size in (2, 5, 17):
        matrix = torch.rand(9, size, generator=generator, dtype=torch.float64).softmax(1)
        codes, grid = matrix_codes(matrix)
        assert (codes.double().sum(1) * grid.scale).tolist() == [1.0] * 9
        assert ((codes.double() * grid.scale - matrix).abs() < grid.scale).all()


def test_weights_below_zero_have_a_zero_point_and_a_coarser_grid_behind_them():
    call = Interpolation("bicubic", (3, 8), None, align_corners=False)
    steps = call.resampling((3, 4)).steps
    codes, grid = matrix_codes(steps[0].matrix)
    assert grid.zero_point > 0 and codes.dtype == torch.uint8
    source = Grid(0.5, 0, 0, 255)
    stage = Stage.of_step(steps[0], (1, 3, 4), 1.0)
    between = stage.grid_between(source)
    assert between.scale > source.scale and between.zero_point > 0
    highest = torch.tensor([255, 0, 0, 255], dtype=torch.uint8).expand(1, 1, 3, 4)
    made, target = stage.run(highest, source)
    assert target == between and int(made.min()) >= 0 and int(made.max()) < 255


def test_means_stay_on_the_grid_of_the_input():
    resampling = resampling_of("adaptive_avg_pool1d", (None, 3), {}, (2, 8), (2, 3))
    (stage,) = resampling.stages((2, 8))
    source = Grid(0.25, 3, 0, 255)
    assert stage.grid_between(source) == source
    codes, _ = stage.run(torch.full((1, 2, 8), 77, dtype=torch.uint8), source)
    assert codes.tolist() == [[[77] * 3] * 2]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("interpolate", {"scale_factor": 2, "mode": "bilinear"}),
        ("interpolate", {"scale_factor": (1.5, 2.3), "mode": "bicubic"}),
        ("interpolate", {"size": (11, 5), "mode": "bilinear", "align_corners": True}),
        ("interpolate", {"size": (5, 4), "mode": "bilinear", "antialias": True}),
        ("interpolate", {"scale_factor": 1.6, "mode": "bilinear", "recompute_scale_factor": True}),
        ("interpolate", {"size": (3, 12), "mode": "area"}),
        ("adaptive_avg_pool2d", {"output_size": (3, 12)}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("avg_pool2d", {"kernel_size": (3, 2), "stride": 2, "ceil_mode": True}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "divisor_override": 5}),
        ("cumsum", {"dim": -2}),
    ],
)
def test_matrices_are_what_torch_computes(name, settings):
    x = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    function = getattr(F, name, None) or getattr(torch, name)
    expected = function(x, **settings)
    resampling = resampling_of(name, (x,), settings, tuple(x.shape[1:]), tuple(expected.shape[1:]))
    assert (applied(resampling, x) - expected).abs().max() < 1e-12


def test_windows_of_one_size_have_a_kernel_of_their_own():
    assert resampling_of("adaptive_avg_pool2d", (None, 4), {}, (3, 8, 8), (3, 4, 4)) is None
    assert resampling_of("interpolate", (None, None, 0.5, "area"), {}, (3, 8, 8), (3, 4, 4)) is None
    assert resampling_of("interpolate", (None, (8, 8), None, "area"), {}, (3, 8, 8), (3, 8, 8)) is None
    assert resampling_of("avg_pool2d", (None, 2, 2, 0, True), {}, (3, 8, 8), (3, 4, 4)) is None
    assert resampling_of("avg_pool2d", (None, 3, 1, 1), {}, (3, 8, 8), (3, 8, 8)) is None


def test_what_makes_the_value_smallest_comes_first_and_identities_are_left_out():
    wide, narrow, same = torch.ones(8, 2).double(), torch.ones(1, 4).double(), torch.eye(3).double()
    assert [step.dim for step in Resampling.over_last([wide, narrow, same]).steps] == [-2, -3]
    assert len(Resampling.over_last([same, same]).steps) == 1


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("settings", [{"size": (11, 5)}, {"scale_factor": 1.7}, {"scale_factor": 2}])
def test_nearest_entries_are_those_that_torch_takes(mode, settings):
    x = torch.arange(8.0 * 9).reshape(1, 1, 8, 9)
    expected = F.interpolate(x, mode=mode, **settings)
    call = Interpolation.of_call((x,), {"mode": mode, **settings}, expected.shape)
    assert torch.equal(x.index_select(2, call.indices(0, 8)).index_select(3, call.indices(1, 9)), expected)
