"""Adam relative to the size of each scale, against numbers written out by hand."""

import pytest
import torch
from torch import nn

from qat.training.scale_optimizer import RELATIVE_RATE, ScaleOptimizer


def scale_of(value, gradient):
    parameter = nn.Parameter(torch.tensor(value))
    parameter.grad = torch.tensor(gradient)
    return parameter


def test_the_first_step_is_relative_to_the_scale_whatever_the_gradient():
    # Adam's first step is its rate times the sign of the gradient
    small, large = scale_of(0.001, 5.0), scale_of(100.0, -0.01)
    ScaleOptimizer([("small", small, None), ("large", large, None)]).step(0.1)
    assert small.item() == pytest.approx(0.001 * (1 - RELATIVE_RATE), rel=1e-6)
    assert large.item() == pytest.approx(100.0 * (1 + RELATIVE_RATE), rel=1e-6)
    assert small.grad is None


def test_a_zero_point_moves_in_shares_of_its_levels():
    point = scale_of(10.0, 1.0)
    ScaleOptimizer([("point", point, 16.0)]).step(0.1)
    assert point.item() == pytest.approx(10.0 - 16 * RELATIVE_RATE, rel=1e-6)


def test_the_rate_follows_the_users_schedule():
    parameter = scale_of(1.0, 1.0)
    optimizer = ScaleOptimizer([("scale", parameter, None)])
    optimizer.step(0.4)
    assert optimizer.adam.param_groups[0]["lr"] == RELATIVE_RATE
    parameter.grad = torch.tensor(1.0)
    optimizer.step(0.1)
    assert optimizer.adam.param_groups[0]["lr"] == RELATIVE_RATE / 4
    parameter.grad = torch.tensor(1.0)
    before = parameter.item()
    optimizer.step(0.0)
    assert parameter.item() == before


@pytest.mark.parametrize("rate, moved", [(0.0, False), (None, True)])
def test_a_warm_up_from_zero_moves_nothing_and_an_optimizer_without_rate_does(rate, moved):
    parameter = scale_of(1.0, 1.0)
    ScaleOptimizer([("scale", parameter, None)]).step(rate)
    assert (parameter.item() != 1.0) is moved


def test_scaled_gradients_are_unscaled_and_an_overflow_skips_the_step():
    parameter = scale_of(1.0, 1024.0)
    optimizer = ScaleOptimizer([("scale", parameter, None)])
    optimizer.step(0.1, gradient_scale=1024.0)
    moment = optimizer.adam.state[parameter]["exp_avg"]
    assert moment.item() == pytest.approx(0.1)  # (1 - 0.9) * 1
    before = parameter.item()
    parameter.grad = torch.tensor(float("inf"))
    optimizer.step(0.1, gradient_scale=1024.0)
    assert parameter.item() == before
    assert moment.item() == pytest.approx(0.1)
    assert parameter.grad is None


def test_without_gradient_nothing_moves_not_even_by_momentum():
    parameter = scale_of(1.0, 1.0)
    optimizer = ScaleOptimizer([("scale", parameter, None)])
    optimizer.step(0.1)
    before = parameter.item()
    optimizer.step(0.1)
    assert parameter.item() == before


def test_state_continues_exactly():
    first, second = scale_of(1.0, 0.5), scale_of(1.0, 0.5)
    one, other = (ScaleOptimizer([("scale", parameter, None)]) for parameter in (first, second))
    one.step(0.1)
    with torch.no_grad():
        second.copy_(first)
    other.load_state_dict(one.state_dict())
    for parameter, optimizer in ((first, one), (second, other)):
        parameter.grad = torch.tensor(-0.25)
        optimizer.step(0.05)
    assert torch.equal(first, second)
    assert one.state_dict()["largest_rate"] == other.state_dict()["largest_rate"] == 0.1


def test_no_parameters_is_fine():
    optimizer = ScaleOptimizer([])
    optimizer.step(0.1)
    optimizer.reduce(lambda flat: None)
    optimizer.load_state_dict(optimizer.state_dict())


def test_reduce_averages_and_gives_every_scale_a_gradient():
    one, two = scale_of(1.0, 2.0), nn.Parameter(torch.ones(2))
    optimizer = ScaleOptimizer([("one", one, None), ("two", two, None)])
    optimizer.reduce(lambda flat: flat.div_(2))
    assert one.grad.item() == 1.0
    assert two.grad.tolist() == [0.0, 0.0]
