import torch

from qat.real.float16 import fits_float16, rounded_to


def test_numbers_that_float16_holds_badly_and_few_alone_stay_float32():
    many = torch.linspace(-1, 1, 100)
    assert fits_float16(many)
    assert not fits_float16(many[:63])
    assert not fits_float16(many * 1e5)
    assert not fits_float16(many * 1e-5)
    assert not fits_float16(torch.cat([many, torch.tensor([float("-inf")])]))
    assert torch.equal(rounded_to("float16", many), many.half().float())
    assert torch.equal(rounded_to("float16", many * 1e5), many * 1e5)
    assert torch.equal(rounded_to("float32", many), many)
