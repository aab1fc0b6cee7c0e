import torch

from qat.emitters.refused import in_one_sentence
from qat.emitters.tensorrt import refusals
from qat.emitters.tensorrt.refusals import pictures
from qat.integer.builder import ProgramBuilder
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid

BYTE = Grid(0.5, 0, -128, 127)
PIXELS = Grid(1.0, 0, 0, 255)


def program_of(write, grid=BYTE, shape=(2, 4, 4)) -> IntegerProgram:
    builder = ProgramBuilder()
    builder.output("y", write(builder, builder.input("x", shape, grid)))
    return builder.build()


def test_what_runs_is_not_refused():
    assert refusals(program_of(lambda b, x: b.max_pool("pool", x, (2, 2)))) == []
    assert refusals(program_of(lambda b, x: b.requantize("q", x, Grid(0.5, 0, 0, 15)))) == []


def test_grids_that_are_not_int8_around_0_stand_together_with_the_remedy():
    program = program_of(lambda b, x: b.requantize("q", x, Grid(0.5, -5, -128, 127)), Grid(0.5, 3, 0, 255))
    assert in_one_sentence("tensorrt", refusals(program)) == (
        "tensorrt cannot run this network: value 'x' and value 'q': its codes are not the -128..127 around 0 that "
        "TensorRT's INT8 kernels take (0..255 with zero point 3); prepare the network with target=tensorrt, and "
        "leave the activations' grids to it (signed and symmetric null)."
    )


def test_operations_without_a_kernel_are_named_with_where_they_came_from():
    island = program_of(lambda b, x: b.float_island("sin", "sin", {"input": x}, BYTE, module="block.sin"))
    (refusal,) = refusals(island)
    assert str(refusal).startswith("FloatIsland 'sin' (from block.sin): it is computed in real numbers")
    assert refusal.detail == "sin" and "drop the rule" in refusal.remedy
    pool = program_of(lambda b, x: b.max_pool("pool", x, (2, 2), dilation=(1, 2)))
    (refusal,) = refusals(pool)
    assert str(refusal) == "MaxPool 'pool': TensorRT pools windows without dilation (here (1, 2)); use dilation 1."
    step = ProgramBuilder()
    state, entry = step.input("state", (2,), BYTE), step.input("entry", (2,), BYTE)
    step.output("next", step.add("sum", state, entry, BYTE))
    step.output("given", "sum")

    def unrolled(builder, x):
        last, *_ = builder.loop(
            "lstm", (x,), (builder.input("first", (2,), BYTE),), step.build("tuple").with_integer_edges("*")
        )
        return last

    (refusal,) = refusals(program_of(unrolled, shape=(3, 2)))
    assert str(refusal).startswith("Loop 'lstm': loops have no INT8 kernel; unroll it")


def test_pixels_may_be_moved_and_looked_up_and_nothing_else():
    codes = torch.arange(-128, 128).to(torch.int8)

    def table(builder, x):
        return builder.table("table", builder.transpose("turned", x, (0, 2, 3, 1)), codes, BYTE)

    program = program_of(table, PIXELS).with_integer_edges("x")
    assert pictures(program) == {"x", "turned"}
    assert refusals(program) == []
    summed = program_of(lambda b, x: b.mean("mean", x, (1,), BYTE), PIXELS).with_integer_edges("x")
    (refusal,) = refusals(summed)
    assert str(refusal) == "Mean 'mean': it reads pixels of 0..255; normalize them with program.with_image_input."


def test_more_dimensions_than_tensorrt_has_are_refused():
    (refusal,) = refusals(program_of(lambda b, x: b.max("top", x, (1,)), shape=(1, 2, 1, 2, 1, 2, 1, 2)))
    assert str(refusal) == "Max 'top': TensorRT has 8 dimensions with the batch (here are 9); use fewer."


def test_constant_factors_may_have_any_codes_and_other_constants_not():
    codes = torch.full((4, 4), 200)
    assert refusals(program_of(lambda b, x: b.matmul("m", x, b.constant("c", codes[None], PIXELS), BYTE))) == []
    (refusal,) = refusals(program_of(lambda b, x: b.mul("m", x, b.constant("c", codes[None], PIXELS), BYTE)))
    assert str(refusal).startswith("value 'c': its codes are not the -128..127 around 0")


def test_a_program_with_the_rounding_of_another_runtime_is_refused():
    (refusal,) = refusals(for_runtime(program_of(lambda b, x: b.add("sum", x, x, BYTE)), "litert"))
    assert str(refusal).startswith("Add 'sum': it rounds as another runtime does; export the program with qat.export")
