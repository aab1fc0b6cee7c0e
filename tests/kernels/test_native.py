"""torch's fused kernel equals `qat.functional` away from ties."""

import torch

from qat import functional
from qat.kernels import native


def test_values_and_gradients_on_a_power_of_two_scale():
    # with such a scale multiplying by the reciprocal is exact
    x = torch.linspace(-3, 20, 997).requires_grad_()
    scale, zero_point = torch.tensor(0.0625), torch.tensor(32, dtype=torch.int32)
    y = native.fake_quantize(x, scale, zero_point, 0, 255)
    expected = functional.fake_quantize(x, scale, zero_point, 0, 255)
    assert torch.equal(y, expected)
    gradients = [torch.autograd.grad(output.sum(), x)[0] for output in (y, expected)]
    assert torch.equal(*gradients)
