"""Sizes that follow a length, and programs that have them."""

import copy
import dataclasses
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run_real
from qat.integer.lengths import Length, LengthRange, at_lengths, lengths_in
from qat.integer.program import MAX_PROGRAMS, Constant, Grid, IntegerProgram, Reshape, Value

HALVES = Grid(0.5, 0, 0, 255)
LENGTH = Length("length", 6)


def test_a_length_is_the_size_at_the_recorded_length():
    assert (LENGTH, LENGTH + 1, 2 * LENGTH, (LENGTH - 3) // 2) == (6, 7, 12, 1)
    assert (2 * LENGTH + 1).at(4) == 9
    assert ((LENGTH - 3) // 2).at(5) == 1
    assert (LENGTH + 1) - LENGTH == 1
    assert not isinstance((LENGTH + 1) - LENGTH, Length)


@given(
    st.lists(st.tuples(st.sampled_from(["+", "-", "*", "//"]), st.integers(1, 5)), max_size=5),
    st.integers(20, 40),
    st.integers(1, 20),
)
def test_arithmetic_is_that_of_integers_at_every_length(steps, longest, shorter):
    size, expected, at_shorter = Length("length", longest), longest, shorter
    for sign, number in steps:
        compute = {
            "+": lambda x, n=number: x + n,
            "-": lambda x, n=number: x - n,
            "*": lambda x, n=number: n * x,
            "//": lambda x, n=number: x // n,
        }[sign]
        size, expected, at_shorter = compute(size), compute(expected), compute(at_shorter)
    assert size == expected
    if isinstance(size, Length):  # a product behind a division is a plain number, right at the recorded length
        assert size.at(shorter) == at_shorter


@pytest.mark.parametrize(
    ("size", "text"),
    [(LENGTH, "length"), (2 * LENGTH - 1, "2*length-1"), ((LENGTH + 1) // 2, "(length+1)//2")],
)
def test_is_described_as_an_expression(size, text):
    assert size.describe() == text


def test_is_copied_with_what_it_follows():
    for twin in (copy.deepcopy(LENGTH + 1), pickle.loads(pickle.dumps(LENGTH + 1))):
        assert (twin.describe(), twin) == ("length+1", 7)
        assert twin.at(2) == 3


def test_lengths_are_found_and_replaced_in_fields_and_tuples():
    value = Value("x", (LENGTH, 4), HALVES)
    assert list(lengths_in((value,))) == [6]
    assert at_lengths(value, {"length": 3}).shape == (3, 4)
    other = Value("y", (2, 4), HALVES)
    assert at_lengths(other, {"length": 3}) is other


def adding():
    """x (length, 2) plus positions (6, 2) of 0 to 11 halves, flattened."""
    builder = ProgramBuilder()
    x = builder.input("x", (LENGTH, 2), HALVES)
    positions = builder.constant("positions", torch.arange(12).reshape(6, 2), HALVES, (LENGTH, 2))
    builder.output("y", builder.add("sum", x, positions, HALVES))
    return builder.build()


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_a_program_runs_at_every_length(length):
    x = torch.ones(3, length, 2)
    expected = 1 + torch.arange(12.0).reshape(6, 2)[:length] / 2
    assert torch.equal(adding()(x), expected.expand(3, length, 2))


def test_a_program_of_one_length_is_a_plain_one():
    program = adding().at(length=4)
    assert not program.lengths
    assert not list(lengths_in((program.values, program.operations, program.constants)))
    assert program.value("positions").codes.shape == (4, 2)
    assert adding().at().value("positions").codes.shape == (6, 2)


def test_is_kept_when_it_was_made_once():
    program = adding()
    assert program.at(length=4) is program.at(length=4)


@pytest.mark.parametrize("length", [7, 12])
def test_a_longer_input_is_refused(length):
    with pytest.raises(ProgramError, match=f"length is {length}; the program takes 1 to 6"):
        adding()(torch.ones(1, length, 2))


@pytest.mark.parametrize("length", [3.0, "3", None])
def test_what_is_no_whole_number_is_no_length(length):
    with pytest.raises(ProgramError, match="the program takes"):
        adding().at(length=length)


def test_no_more_programs_are_kept_than_a_few():
    builder = ProgramBuilder()
    x = builder.input("x", (Length("length", 3 * MAX_PROGRAMS), 2), HALVES)
    builder.output("y", builder.add("sum", x, x, HALVES))
    many = builder.build()
    for length in range(1, 3 * MAX_PROGRAMS + 1):
        newest = many.at(length=length)
    assert many.at(length=3 * MAX_PROGRAMS) is newest
    assert len(many._of_one_length) == MAX_PROGRAMS


def test_an_unknown_length_is_refused():
    with pytest.raises(ProgramError, match="no length 'size'; its lengths are: length"):
        adding().at(size=3)


def test_another_shape_is_refused_with_the_expression():
    with pytest.raises(ProgramError, match=r"expected \(batch, length, 2\)"):
        adding()(torch.ones(1, 6, 3))


def test_is_saved_and_loaded(tmp_path):
    program = adding()
    program.save(tmp_path)
    loaded = IntegerProgram.load(tmp_path)
    assert loaded.lengths == program.lengths
    for length in (2, 6):
        x = torch.rand(2, length, 2) * 10
        assert torch.equal(loaded(x), program(x))


def test_inputs_of_two_lengths_are_refused():
    builder = ProgramBuilder()
    x, y = builder.input("x", (LENGTH,), HALVES), builder.input("y", (LENGTH,), HALVES)
    builder.output("z", builder.add("sum", x, y, HALVES))
    program = builder.build()
    assert run_real(program, (torch.ones(1, 3), torch.ones(1, 3))).tolist() == [[2.0, 2.0, 2.0]]
    with pytest.raises(ProgramError, match="another input has length 3"):
        run_real(program, (torch.ones(1, 3), torch.ones(1, 4)))


def test_a_size_that_is_right_for_the_recorded_length_only_is_refused():
    operation = Reshape(name="flat", source="", inputs=("x",), output="flat", shape=(12,))
    program = adding()
    values = (program.values[0], Value("flat", (12,), HALVES))
    with pytest.raises(ProgramError, match="with length 1: .*cannot turn"):
        dataclasses.replace(
            program, values=values, operations=(operation,), constants=(),
            outputs=(dataclasses.replace(program.outputs[0], value="flat"),),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((), "is no length of the program"),
        ((LengthRange("length", 1, 7, 7),), "is no length of the program"),
        ((LengthRange("length", 1, 6, 6), LengthRange("other", 1, 6, 6)), "no input has 'other'"),
        ((LengthRange("length", 1, 6, 6), LengthRange("length", 1, 6, 6)), "two lengths are named"),
    ],
)
def test_lengths_that_contradict_the_program_are_refused(lengths, message):
    with pytest.raises(ProgramError, match=message):
        dataclasses.replace(adding(), lengths=lengths)


@pytest.mark.parametrize("numbers", [(0, 3, 3), (4, 3, 3), (1, 4, 3), (1, 4, 2**20 + 1)])
def test_a_range_without_lengths_is_refused(numbers):
    with pytest.raises(ProgramError, match="a length is 1 to 1048576"):
        LengthRange("length", *numbers)


def test_what_has_no_constant_runs_at_longer_lengths_than_recorded():
    builder = ProgramBuilder()
    x = builder.input("x", (LENGTH, 2), HALVES)
    builder.output("y", builder.add("sum", x, x, HALVES))
    program = dataclasses.replace(builder.build(), lengths=(LengthRange("length", 1, 6, 100),))
    assert program(torch.ones(1, 100, 2)).sum() == 400
    with pytest.raises(ProgramError, match="with length 100: .*cannot broadcast"):
        dataclasses.replace(adding(), lengths=(LengthRange("length", 1, 6, 100),))


def test_a_name_of_no_letters_is_refused():
    with pytest.raises(ProgramError, match="use letters"):
        LengthRange("2*n", 1, 3, 3)


def test_a_constant_of_other_sizes_than_its_codes_is_refused():
    with pytest.raises(ProgramError, match="has sizes"):
        Constant("c", HALVES, torch.zeros(4, dtype=torch.uint8), sizes=(LENGTH,))


def test_shapes_in_fields_follow():
    builder = ProgramBuilder()
    wide = builder.expand("wide", builder.input("x", (LENGTH, 1), HALVES), (LENGTH, 3))
    flat = builder.reshape("flat", wide, (3 * LENGTH,))
    builder.output("y", builder.add("sum", flat, flat, HALVES))
    assert builder.build()(torch.ones(1, 2, 1)).tolist() == [[2.0] * 6]


def test_means_weigh_by_the_length_of_the_input():
    builder = ProgramBuilder()
    x = builder.input("x", (LENGTH,), HALVES)
    builder.output("y", builder.mean("y", x, (1,), HALVES))
    program = builder.build()
    assert program(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [3.0]
    assert program(torch.tensor([[1.0, 2.0, 6.0, 0.0, 0.0, 0.0]])).tolist() == [1.5]


def test_a_size_that_happens_to_be_one_is_not_the_number_one():
    length, one = Length("length", 5), Length("length", 5, divisor=5)
    assert one == 1
    for size in (length * one, length // one):
        assert size == 5
        assert not isinstance(size, Length)


def test_a_normalization_over_a_length_is_refused():
    builder = ProgramBuilder()
    x = builder.input("x", (3, LENGTH), HALVES)
    builder.output("y", builder.normalize("norm", x, (2,), HALVES))
    with pytest.raises(ProgramError, match="normalizes over the length of an input"):
        builder.build()


def test_lengths_of_two_inputs_are_not_added_or_multiplied_to_one():
    other = Length("other", 5)
    assert (LENGTH + other, LENGTH * other, LENGTH - other, LENGTH // other) == (11, 30, 1, 1)
    for number in (LENGTH + other, LENGTH * other, LENGTH - other, LENGTH // other):
        assert type(number) is int
    assert (LENGTH + LENGTH).describe() == "2*length"


def test_a_field_that_no_file_computes_is_one_for_all_lengths():
    builder = ProgramBuilder()
    x = builder.input("x", (3, LENGTH), HALVES)
    builder.output("y", builder.max_pool("y", x, (LENGTH // 2,), stride=(LENGTH // 2,)))
    with pytest.raises(ProgramError, match="MaxPool 'y' .*has a kernel_size that follows the length of an input"):
        builder.build()
