import pytest
import torch

from qat.emitters.samples import outputs_by_name, random_inputs
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import Loop
from qat.integer.unrolled import unrolled
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE, MEMORY = Grid(float32(0.02), 117, 0, 255), Grid(float32(0.03), 100, 0, 255)


def looped(reverse=False, constant_state=True):
    """Three steps of `state = linear(state) + entry * 2`, and of a second state that the first becomes."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(-127, 128, (2, 2), generator=generator).to(torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.tensor([0.004, 0.006]))
    step = ProgramBuilder()
    entry, before, other = step.input("entry", (2,), BYTE), step.input("before", (2,), MEMORY), step.input(
        "other", (2,), MEMORY
    )  # fmt: skip
    doubled = step.requantize("doubled", entry, MEMORY, factor=2.0)
    state = step.add("next", step.linear("recurrent", before, weight, MEMORY, module="net.loop"), doubled, MEMORY)
    mixed = step.mul("mixed", other, step.constant("factor", torch.tensor([3]), Grid(0.5, 0, 0, 15)), MEMORY)
    step.output("state", state)
    step.output("older", before)
    step.output("output", step.add("sum", state, mixed, MEMORY))
    body = step.build("tuple").with_integer_edges("*")
    builder = ProgramBuilder()
    x = builder.input("x", (3, 2), BYTE)
    firsts = [builder.constant(name, torch.tensor([7, 30 + place]), MEMORY) for place, name in enumerate(("a", "b"))]
    if not constant_state:
        firsts[0] = builder.input("a0", (2,), MEMORY)
    outputs = builder.loop("loop", (x,), tuple(firsts), body, reverse=reverse)
    for name, output in zip(("y", "state", "older"), outputs, strict=True):
        builder.output(name, output)
    return builder.build("dict")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant_state", [False, True])
def test_every_step_is_an_operation_of_its_own_and_gives_the_same_codes(reverse, constant_state):
    program = looped(reverse, constant_state)
    plain = unrolled(program)
    assert not any(isinstance(operation, Loop) for operation in plain.operations)
    for inputs in random_inputs(program):
        expected, found = outputs_by_name(program, inputs), outputs_by_name(plain, inputs)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_a_step_makes_of_constants_alone_is_a_constant():
    plain = unrolled(looped())
    assert {"loop/0/recurrent", "loop/0/mixed", "loop/1/mixed"} <= {constant.name for constant in plain.constants}
    assert [operation.source for operation in plain.operations if operation.name == "loop/1/recurrent"] == ["net.loop"]


def test_a_program_without_loops_is_itself():
    builder = ProgramBuilder()
    builder.output("y", builder.max("m", builder.input("x", (4,), BYTE), (1,)))
    program = builder.build()
    assert unrolled(program) is program
