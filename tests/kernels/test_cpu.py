"""The CPU kernels equal `qat.functional`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat import functional, kernels
from qat.functional import SCALE_FLOOR
from qat.kernels import cpu


@settings(deadline=None, max_examples=150)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    scale=st.floats(2.0**-10, 100.0, width=32),
    point=st.integers(0, 255),
)
def test_the_forward_pass_is_equal_to_the_bit(values, scale, point):
    x, step, shift = torch.tensor(values), torch.tensor(scale), torch.tensor(point, dtype=torch.int32)
    expected = functional.fake_quantize(x, step, shift, 0, 255)
    assert torch.equal(cpu.fake_quantize(x, step, shift, 0, 255), expected)
    assert torch.equal(cpu.fake_quantize_learned(x, step, shift.float(), 0, 255, 1.0), expected)


def test_gradients_by_hand():
    x = torch.tensor([-9.0, -0.3, 0.3, 9.0], requires_grad=True)
    cpu.fake_quantize(x, torch.tensor(0.5), torch.tensor(0, dtype=torch.int32), -8, 7).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_learned_gradients_by_hand():
    x = torch.tensor([-10.0, -0.75, 0.25, 0.625, 10.0], requires_grad=True)
    for element, expected in enumerate([-8.0, -0.5, -0.5, -0.25, 7.0]):
        scale = torch.tensor(0.5, requires_grad=True)
        cpu.fake_quantize_learned(x, scale, torch.tensor(0.0), -8, 7, 1.0)[element].backward()
        assert scale.grad.item() == expected
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_learned_zero_point_gradient_by_hand():
    zero_point = torch.tensor(2.6, requires_grad=True)
    y = cpu.fake_quantize_learned(torch.tensor([-3.0, 1.1, 8.0]), torch.tensor(0.5), zero_point, 0, 15, 0.5)
    (y * torch.tensor([1.0, 10.0, 3.0])).sum().backward()
    assert y.tolist() == [-1.5, 1.0, 6.0]
    assert zero_point.grad.item() == -1.0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_equal_functional_in_any_layout(memory_format, transposed):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 3, 5, 6, generator=generator).to(memory_format=memory_format)
    upstream = (
        torch.randn(4, 3, 6, 5, generator=generator) if transposed else torch.randn(4, 3, 5, 6, generator=generator)
    )
    results = []
    for form in (cpu.fake_quantize_learned, functional.fake_quantize_learned):
        x = base.clone().requires_grad_()
        parameters = [torch.tensor(0.1, requires_grad=True), torch.tensor(7.0, requires_grad=True)]
        y = form(x.transpose(2, 3) if transposed else x, *parameters, 0, 15, 0.01)
        results.append((y, *torch.autograd.grad((y * upstream).sum(), [x, *parameters])))
    (y, to_x, to_scale, to_point), (expected, expected_x, expected_scale, expected_point) = results
    assert torch.equal(y, expected)
    assert torch.equal(to_x, expected_x)
    torch.testing.assert_close((to_scale, to_point), (expected_scale, expected_point))


def test_a_scale_below_the_floor_and_an_overflowed_gradient():
    scale = torch.tensor(-1.0, requires_grad=True)
    y = cpu.fake_quantize_learned(torch.tensor([1.0]), scale, torch.tensor(0.0), -7, 7, 1.0)
    (y * torch.nan).sum().backward()
    assert y.item() == 7 * SCALE_FLOOR
    assert scale.grad.item() == 0.0


def test_dispatch_per_channel_and_midrise():
    x = torch.tensor([[0.75, 9.0], [0.75, -9.0]])
    scale, zero_point = torch.tensor([0.5, 1.0]), torch.zeros(2, dtype=torch.int32)
    assert kernels.fake_quantize(x, scale, zero_point, -7, 7, False, 0).tolist() == [[1.0, 3.5], [1.0, -7.0]]
    assert kernels.fake_quantize(x, torch.tensor(1.0), zero_point[0], -2, 1, True, None).tolist() == [
        [0.5, 1.5],
        [0.5, -1.5],
    ]
    learned = kernels.fake_quantize_learned(x, scale, zero_point.float(), -7, 7, 1.0, False, 0)
    assert learned.tolist() == [[1.0, 3.5], [1.0, -7.0]]
