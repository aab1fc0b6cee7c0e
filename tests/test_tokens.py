import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.tokens import fake_quantize_tokens, token_codes


def test_codes_of_tokens_by_hand():
    x = torch.tensor([[127.0, -2.5, 3.5], [-0.254, 0.127, 0.001], [0.0, 0.0, 0.0]])
    codes, scale = token_codes(x, (-1,))
    assert codes.tolist() == [[127, -2, 4], [-127, 64, 0], [0, 0, 0]]  # halves go to the even code
    assert scale[0].item() == 1.0
    assert torch.equal(scale[1], torch.tensor([0.254]) / torch.tensor(127.0))


def test_a_token_of_a_convolution_is_the_whole_sample():
    x = torch.zeros(2, 1, 2, 2)
    x[0, 0, 1, 0], x[1, 0, 0, 1] = 254.0, -1.27
    codes, scale = token_codes(x, (-3, -2, -1))
    assert scale.shape == (2, 1, 1, 1)
    assert codes.flatten(1).tolist() == [[0, 0, 127, 0], [0, -127, 0, 0]]


def test_the_gradient_is_that_of_the_identity():
    x = torch.tensor([[3.0, -0.2]], requires_grad=True)
    rounded = fake_quantize_tokens(x, (-1,))
    rounded.mul(torch.tensor([2.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [[2.0, 5.0]]
    assert torch.allclose(rounded.detach(), torch.tensor([[3.0, -8 * 3.0 / 127]]))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=9))
def test_no_code_leaves_the_grid_and_none_is_off_by_more_than_half_a_step(values):
    x = torch.tensor([values])
    codes, scale = token_codes(x, (-1,))
    assert bool((codes.abs() <= 127).all())
    assert bool(((codes * scale - x).abs() <= scale * 0.50001 + x.abs() * 1e-6).all())


def test_numbers_of_narrow_types_keep_their_type():
    assert fake_quantize_tokens(torch.ones(2, 3, dtype=torch.bfloat16), (-1,)).dtype == torch.bfloat16
