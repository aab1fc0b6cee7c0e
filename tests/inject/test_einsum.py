"""torch.einsum as products of matrices: torch's own values and gradients, and the batch in front all the way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.inject.einsum import einsum

SIZES = dict(zip("abcdefg", (2, 3, 4, 5, 2, 3, 1), strict=True))


def reals(letters, seed=0):
    shape = [SIZES[letter] for letter in letters]
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(equation, operands):
    ours, theirs = einsum(equation, *operands), torch.einsum(equation, *operands)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    gradients = (torch.autograd.grad(made.tanh().sum(), operands) for made in (ours, theirs))
    for own, expected in zip(*gradients, strict=True):
        assert torch.allclose(own, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "equation",
    [
        "ab,bc->ac",
        "abc,abd->acd",
        "abcd,acd->abc",
        "abcd,aebd->aceb",
        "abc,cd->abd",
        "cd,abc->abd",
        "abc->acb",
        "abc->a",
        "abc,abc->abc",
        "abc,abc->ab",
        "abc,c->abc",
        "ab,cd->abcd",
        "abc,cd,de->abe",
        "ab,ac,ad->abcd",
        "abc , bd -> acd",
        "ab,bc",
        "ba",
        "ag,gb->ab",
    ],
)
def test_values_and_gradients_are_those_of_torch(equation):
    inputs = equation.replace(" ", "").partition("->")[0].split(",")
    assert_same(equation, [reals(letters, seed) for seed, letters in enumerate(inputs)])


@pytest.mark.parametrize(
    ("equation", "letters"),
    [("...c,cd->...d", ("abc", "cd")), ("a...,a...->a", ("abc", "abc")), ("...b,...b", ("acb", "acb")),
     ("a...c,c->a...", ("abdc", "c"))],
)  # fmt: skip
def test_dots_stand_for_the_dimensions_that_are_not_named(equation, letters):
    assert_same(equation, [reals(names, seed) for seed, names in enumerate(letters)])


def test_operands_may_come_as_a_list():
    operands = [reals("ab"), reals("bc", 1)]
    assert torch.equal(einsum("ab,bc->ac", operands), einsum("ab,bc->ac", *operands))


def test_diagonals_and_numbers_for_letters_stay_what_they_are():
    square = torch.ones(2, 2)
    assert einsum("aa->a", square) is NotImplemented
    assert einsum("ab->aab", square) is NotImplemented
    assert einsum(square, [0, 1], [1, 0]) is NotImplemented


@st.composite
def equations(draw):
    """Two or three factors of up to four of the letters, and a result of letters that they have."""
    inputs = draw(
        st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True), min_size=2, max_size=3)
    )
    present = sorted({letter for letters in inputs for letter in letters})
    output = draw(st.lists(st.sampled_from(present), max_size=4, unique=True))
    return ",".join("".join(letters) for letters in inputs) + "->" + "".join(output)


@settings(max_examples=150, deadline=None)
@given(equation=equations())
def test_any_equation_gives_the_values_of_torch(equation):
    operands = [reals(letters, seed) for seed, letters in enumerate(equation.partition("->")[0].split(","))]
    assert torch.allclose(einsum(equation, *operands), torch.einsum(equation, *operands), rtol=0, atol=1e-10)
