"""Products and quotients of two values: eval forward, interpreter and ONNX Runtime agree on every code."""

import pytest
import torch
from torch import nn

import qat
from qat.integer.program import MatMul

PAIR = {"pair": nn.Linear(8, 16)}


def halves(net, x):
    return net.parts["pair"](x.flatten(2).transpose(1, 2)[:, ::4]).chunk(2, -1)  # each (N, 16, 8)


def product(combine):
    return lambda net, x: combine(*halves(net, x))


BODIES = {
    "matmul": (product(lambda a, b: a @ b.mT), 16 * 16, PAIR),
    "times_a_number": (product(lambda a, b: (a @ b.mT) * 0.3), 16 * 16, PAIR),
    "times_a_negative_number": (product(lambda a, b: (a @ b.mT) * -0.3), 16 * 16, PAIR),
    "over_a_number_and_clamped": (product(lambda a, b: ((a @ b.mT) / 2.5).clamp(-0.1, 0.2)), 16 * 16, PAIR),
    "twice_a_number": (product(lambda a, b: (a @ b.mT) * 0.3 * 2), 16 * 16, PAIR),
    "with_itself": (product(lambda a, b: a.mT @ a), 8 * 8, PAIR),
    "bmm": (product(lambda a, b: torch.bmm(a.mT, b)), 8 * 8, PAIR),
    "einsum": (product(lambda a, b: torch.einsum("nld,nmd->nlm", a, b)), 16 * 16, PAIR),
    "heads": (
        product(lambda a, b: a.unflatten(-1, (2, 4)).transpose(1, 2) @ b.unflatten(-1, (2, 4)).permute(0, 2, 3, 1)),
        2 * 16 * 16, PAIR,
    ),
    "one_matrix_for_all": (
        product(lambda a, b: a.unflatten(-1, (2, 4)).transpose(1, 2) @ b.mean(1)[:, None, :, None][:, :, :4]), 2 * 16,
        PAIR,
    ),
    "a_value_over_a_value": (product(lambda a, b: a / (b.square() + 0.5)), 16 * 8, PAIR),
    "a_value_over_its_spread": (product(lambda a, b: a / (b.square().mean(-1, keepdim=True) + 1e-6).sqrt()), 128, PAIR),
    "a_divisor_that_may_be_nothing": (product(lambda a, b: a / b.relu().amax(-1, keepdim=True).add(1e-6)), 128, PAIR),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", BODIES)
def test_products_of_values_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*BODIES[name], quant)


def test_a_positive_number_behind_a_product_is_in_its_multiplier(trained_network):
    network, _ = trained_network(*BODIES["times_a_number"])
    (operation,) = (each for each in qat.convert(network).operations if isinstance(each, MatMul))
    assert operation.factor == pytest.approx(0.3, rel=1e-7)
