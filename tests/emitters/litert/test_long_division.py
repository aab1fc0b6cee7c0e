"""Quotients and roots of int64 numbers, as the runtime's own kernels of remainders give them."""

import math

import numpy
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from qat.emitters.litert.forms.divided import divided, root
from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.long_division import Digits, digits_of, root_steps
from qat.emitters.litert.model import Model
from qat.integer.kernels.normalize import integer_root


class _Writer:
    """As much of a writer as operators on integers ask for."""

    def __init__(self):
        self.model = Model()

    def numbers(self, numbers, dtype=numpy.int32):
        return self.model.constant("n", numpy.array(numbers, dtype))

    def reshape(self, source, target, shape):
        self.model.operator("RESHAPE", [source, self.numbers([-1, *shape[1:]])], [target])


def computed(write, *operands):
    """What `write(nodes, tensors)` makes of int64 operands (1, n)."""
    writer = _Writer()
    tensors = [writer.model.tensor(f"x{place}", each.shape, numpy.int64) for place, each in enumerate(operands)]
    result = write(Integers(writer, "d"), *tensors)
    content = writer.model.to_bytes({f"x{tensor}": tensor for tensor in tensors}, {"y": result}, "")
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for tensor, each in zip(tensors, operands, strict=True):
        interpreter.set_tensor(tensor, each)
    interpreter.invoke()
    return interpreter.get_tensor(result)


def test_a_quotient_by_remainders_by_hand():
    assert digits_of(5, 7, 41) == Digits(1, 0, 3)
    # 41 = 5 * 7 + 6 and T = 8: 328 mod 55 = 53 = 6 * 8 + 5
    numerators = numpy.array([[41, 42 - 7, 0, 6]])
    result = computed(lambda nodes, a, b: divided(nodes, a, b, Digits(1, 0, 3)), numerators, numpy.full((1, 4), 7))
    assert result.tolist() == [[5, 5, 0, 0]]


@pytest.mark.parametrize(
    ("quotient", "divisor", "zeros"),
    [(2**14, 2**33, 0), (2**27, 2**32, 0), (2**29, 2**31, 0), (2**30, 2**31, 41), (2**44, 2**17, 45), (3, 2**58, 0)],
)
def test_quotients_at_both_ends_of_every_digit(quotient, divisor, zeros):
    digits = digits_of(quotient, divisor, quotient * divisor, zeros)
    rng = numpy.random.default_rng(0)
    divisors = numpy.array([divisor, divisor - 1, divisor // 2 + 1, *rng.integers(divisor // 4, divisor, 60)])
    quotients = numpy.array([quotient, quotient - 1, 0, *rng.integers(0, quotient, 30)])
    base = 1 << max(digits.bits, 1)
    quotients = numpy.concatenate([quotients, quotients // base * base, quotients // base * base + base - 1])
    quotients = quotients[quotients <= quotient]
    pairs = [(int(q), int(b)) for q in quotients for b in divisors]
    if zeros:
        numbers = [(q * b >> zeros, b) for q, b in pairs]
    else:
        numbers = [(q * b + rest, b) for q, b in pairs for rest in (0, 1, b - 1) if q * b + rest <= quotient * divisor]
    numerators, divisors = (numpy.array([column]) for column in zip(*numbers, strict=True))
    result = computed(lambda nodes, a, b: divided(nodes, a, b, digits, zeros), numerators, divisors)
    assert result[0].tolist() == [(a << zeros) // b for a, b in numbers]


@pytest.mark.parametrize("largest", [2**62 - 1, 2**61 + 12345, 2**40, 1000, 1])
def test_roots_are_those_of_the_program(largest):
    """Beside squares, where the last Newton step decides, and at both ends of the range of each first estimate."""
    rng = numpy.random.default_rng(1)
    roots = numpy.concatenate([2.0 ** numpy.arange(32), 2 ** rng.uniform(0, 31, 3000)]).astype(numpy.int64)
    squares = numpy.concatenate([roots**2 + off for off in (-2, -1, 0, 1, 2)] + [roots * (roots + 1), 2 * roots])
    far = numpy.concatenate([roots**2 - 10**power for power in range(1, 8)])
    numbers = numpy.concatenate([squares, far, [largest, largest - 1]])
    numbers = numbers[(numbers >= 1) & (numbers <= largest)][None]
    steps = root_steps(largest)
    result = computed(lambda nodes, n: root(nodes, n, steps), numbers)
    expected = integer_root(torch.from_numpy(numbers)).numpy()
    assert (result == expected).all() and result.max() <= steps.highest
    assert abs(result - numpy.array([[math.isqrt(int(each)) for each in numbers[0]]])).max() <= 1


def test_what_leaves_int64_has_no_digits():
    assert root_steps(2**62) is None
    assert digits_of(2**50, 2**40, 2**60) is None
    assert digits_of(2**60, 2**40, 2**62) is None
