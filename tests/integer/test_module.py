"""Programs as torch modules."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from every_operation import program_of_every_operation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import qat
from qat.errors import ProgramError
from qat.integer import module as module_file
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import Multiplier, requantize, requantize_product
from qat.integer.kernels import matrices
from qat.integer.lengths import Length
from qat.integer.rescale import Rescaling, rescale
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32
from qat.models import DigitsCNN, VisionTransformer

NARROW, WIDE = Grid(float32(0.02), 128, 0, 255), Grid(float32(0.0001), 0, -32768, 32767)
BYTE = Grid(0.5, 0, 0, 255)


def inputs_of(program, batch, seed=0):
    """Inputs by name; real ones beyond their grids as well."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for edge in program.inputs:
        value = program.value(edge.value)
        shape = (batch, *value.shape)
        if isinstance(value.grid, IndexRange):
            found[edge.name] = torch.randint(0, value.grid.count, shape, generator=generator)
        else:
            found[edge.name] = torch.randn(shape, generator=generator) * value.grid.scale * 60
    return found


def assert_equal(program, run, batches=(1, 3, 7)):
    for batch in batches:
        inputs = inputs_of(program, batch, seed=batch)
        expected, actual = program(inputs), run(**inputs)
        assert type(expected) is type(actual)
        for wanted, found in zip(tree_leaves(expected), tree_leaves(actual), strict=True):
            assert wanted.dtype == found.dtype and torch.equal(wanted, found)


class Residual(nn.Module):
    """A convolution, a depthwise one and a grouped one, with a sum and a strided shortcut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=2)
        self.shortcut = nn.Conv2d(16, 16, 1, stride=2)
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        y = F.relu(self.grouped(F.relu6(self.depthwise(x))) + self.shortcut(x))
        return self.last(F.max_pool2d(y, 2).mean((2, 3)))


def trained(network, example, quant):
    """The program of a network after a few steps."""
    handle = qat.prepare(network, example[:2], quant)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.05)
    for _ in range(3):
        loss = network(example).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return qat.convert(network)


@pytest.fixture(scope="module")
def programs():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 8, 8)
    transformer = VisionTransformer(image_size=8, patch_size=4, depth=1, width=16, heads=2, hidden=24)
    return {
        "cnn": trained(DigitsCNN(width=8), torch.rand(8, 1, 8, 8), "w4a8"),
        "residual": trained(Residual(), images, "w3a4"),
        "transformer": trained(transformer, images, "w8a8"),
    }


@pytest.mark.parametrize("source", [NARROW, WIDE])
def test_every_operation_gives_the_codes_of_the_interpreter(source):
    program = program_of_every_operation(source)
    assert_equal(program, program.to_module())


@pytest.mark.parametrize("runtime", ["litert", "tensorrt"])
@pytest.mark.parametrize("name", ["cnn", "residual", "transformer"])
def test_the_rounding_of_other_runtimes_is_computed_as_well(programs, name, runtime):
    program = for_runtime(programs[name], runtime)
    assert_equal(program, program.to_module())


@pytest.mark.parametrize(
    ("name", "strict"),
    [("cnn", True), ("residual", False), ("transformer", False)],
)
def test_networks_are_exported_for_any_batch(programs, name, strict, tmp_path):
    program = programs[name]
    module = program.to_module()
    assert_equal(program, module)
    (example,) = inputs_of(program, 2).values()
    graph = torch.export.export(module, (example,), dynamic_shapes=({0: Dim("batch")},), strict=strict)
    torch.export.save(graph, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    (edge,) = program.inputs
    assert_equal(program, lambda **inputs: loaded(inputs[edge.name]))


def test_a_network_is_compiled_without_a_break(programs):
    program = programs["transformer"]
    compiled = torch.compile(program.to_module(), fullgraph=True, dynamic=True, backend="aot_eager")
    assert_equal(program, compiled, batches=(3, 7))


def test_every_operation_is_exported():
    program = program_of_every_operation(NARROW)
    batch = Dim("batch")
    shapes = {"x": {0: batch}, "ids": {0: batch}}
    graph = torch.export.export(program.to_module(), (), inputs_of(program, 3), dynamic_shapes=shapes)
    assert_equal(program, graph.module())


class IntegersOnly(TorchDispatchMode):
    """Fails on every operation that takes or makes a floating-point tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not (isinstance(leaf, torch.Tensor) and leaf.is_floating_point()), f"{function} is real"
        return result


def test_only_integers_are_computed_with_between_quantize_and_dequantize():
    program = program_of_every_operation(NARROW).with_integer_edges("*")
    module = program.to_module()
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randint(0, 256, (3, 4, 8, 8), generator=generator).byte(),
        "ids": torch.randint(0, 4, (3, 2), generator=generator),
    }
    with IntegersOnly():
        outputs = module(**inputs)
    for name, expected in program(inputs).items():
        assert torch.equal(outputs[name], expected)


@pytest.mark.parametrize("name", ["cnn", "residual", "transformer"])
def test_the_state_has_the_bytes_of_the_program(programs, name):
    program = programs[name]
    state = programs[name].to_module().state_dict()
    constants = sum(constant.codes.numel() * constant.codes.element_size() for constant in program.constants)
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) == program.bytes + constants


def with_weight(bits, step=1, offset=0):
    """A layer of 3 times 5 weights of `bits` bits."""
    half = 2 ** (bits - 1)
    codes = torch.arange(15).remainder(2 * half).sub(half).to(torch.int8).reshape(3, 5)
    weight = Weight(codes, WeightGrid(bits, step, offset), torch.full((3,), float32(0.01)))
    builder = ProgramBuilder()
    x = builder.input("x", (5,), BYTE)
    builder.output("y", builder.linear("fc", x, weight, Grid(float32(0.3), 100, 0, 255)))
    return builder.build()


@pytest.mark.parametrize(("bits", "count"), [(2, 4), (3, 6), (4, 8), (5, 10), (6, 12), (7, 14)])
def test_weights_are_packed_densely(bits, count):
    program = with_weight(bits)
    module = program.to_module()
    assert module.state_dict()["steps.0.weight"].dtype == torch.uint8
    assert module.state_dict()["steps.0.weight"].shape == (count,)
    assert_equal(program, module)


def test_weights_of_eight_bits_keep_their_shape():
    assert with_weight(8).to_module().state_dict()["steps.0.weight"].shape == (3, 5)


def test_levels_between_zero_are_those_of_the_program():
    program = with_weight(2, 64, 32)
    assert_equal(program, program.to_module())


def test_a_weight_is_unpacked_once_and_again_after_it_changed():
    program, other = with_weight(4), with_weight(4)
    module = program.to_module()
    assert_equal(program, module)
    first = module.steps[0].bound({})
    assert_equal(program, module)
    assert module.steps[0].bound({}) is first
    module.load_state_dict(other.to_module().state_dict())
    assert module.steps[0].bound({}) is not first
    assert_equal(other, module)


def test_a_state_of_another_program_is_refused():
    with pytest.raises(RuntimeError, match="the state is that of another program"):
        with_weight(4).to_module().load_state_dict(with_weight(4, 2).to_module().state_dict())


def test_copies_and_pickles_compute_the_same(programs):
    program = programs["transformer"]
    module = program.to_module()
    assert_equal(program, module)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is type(module)
        assert_equal(program, twin)


def test_a_module_comes_back_whole_from_the_meta_device(programs):
    program = programs["transformer"]
    module = program.to_module()
    state = copy.deepcopy(module.state_dict())
    away = module.to("meta")
    assert all(buffer.is_meta for buffer in away.buffers())
    with torch.device("meta"):
        shape = (3, *program.value(program.inputs[0].value).shape)
        assert away(torch.zeros(shape)).shape == (3, 10)
    back = away.to_empty(device="cpu")
    back.load_state_dict(state)
    assert_equal(program, back)


def test_conversions_of_real_numbers_leave_the_integers_alone(programs):
    module = programs["cnn"].to_module().half()
    assert_equal(programs["cnn"], module)


LENGTH = Length("length", 9)


def of_any_length(kind):
    builder = ProgramBuilder()
    x = builder.input("x", (LENGTH, 4), BYTE)
    if kind == "mean":
        y = builder.mean("mean", x, (1,), Grid(0.25, 3, 0, 255))
    elif kind == "positions":
        positions = builder.constant("positions", torch.arange(36).reshape(9, 4), BYTE, (LENGTH, 4))
        y = builder.reshape("flat", builder.add("sum", x, positions, BYTE), (2 * LENGTH, 2))
    else:
        turned = builder.transpose("turned", x, (0, 2, 1))
        scores = builder.matmul("scores", x, turned, Grid(float32(900.0), 0, 0, 255))
        logs = builder.log_softmax("logs", scores, 2, Grid(float32(0.05), 255, 0, 255))
        shares = builder.softmax("shares", builder.requantize("again", logs, BYTE), 2, Grid(1 / 256, 0, 0, 255))
        y = builder.matmul("attended", shares, x, BYTE)
    builder.output("y", y)
    return builder.build()


@pytest.mark.parametrize("kind", ["mean", "positions", "attention"])
def test_modules_take_every_length(kind):
    program = of_any_length(kind)
    module = program.to_module()
    dims = {0: Dim("batch"), 1: Dim("length", min=1, max=9)}
    graph = torch.export.export(module, (torch.zeros(3, 9, 4),), dynamic_shapes=(dims,)).module()
    for length in (1, 2, 5, 9):
        x = torch.rand(2, length, 4, generator=torch.Generator().manual_seed(length)) * 128
        expected = program(x)
        assert torch.equal(module(x), expected)
        assert torch.equal(graph(x), expected)


@pytest.mark.parametrize(
    ("program", "inputs", "message"),
    [
        (with_weight(4), (torch.zeros(2, 4),), r"shape \(2, 4\); expected \(batch, 5\)"),
        (with_weight(4), (torch.zeros(0, 5),), "batch of at least 1"),
        (of_any_length("mean"), (torch.zeros(1, 10, 4),), "length is 10; the program takes 1 to 9"),
        (of_any_length("mean"), (torch.zeros(1, 9, 3),), r"expected \(batch, length, 4\)"),
    ],
)
def test_inputs_of_another_shape_are_refused(program, inputs, message):
    with pytest.raises(ProgramError, match=message):
        program.to_module()(*inputs)


def test_real_numbers_in_the_place_of_indices_are_refused():
    program = program_of_every_operation(NARROW)
    inputs = inputs_of(program, 1)
    with pytest.raises(ProgramError, match="input 'ids' is torch.float32; it takes integers"):
        program.to_module()(inputs["x"], inputs["ids"].float())


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        (("x", "ids"), ["x", "ids"]),
        (("past.0", "past_0"), ["past_0", "past_0_"]),
        (("0", "class", "self"), ["input_0", "input_class", "input_self"]),
    ],
)
def test_arguments_are_named_as_the_inputs(names, arguments):
    assert module_file.argument_names(names) == arguments


def test_int8_products_of_a_gpu_are_filled_up_to_the_shapes_that_its_kernel_takes(monkeypatch):
    taken = []

    def product(first, second):
        taken.append((tuple(first.shape), tuple(second.shape)))
        return first.int() @ second.int()

    monkeypatch.setattr(torch, "_int_mm", product)
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(-128, 128, (5, 27), generator=generator).to(torch.int8)
    second = torch.randint(-128, 128, (27, 9), generator=generator).to(torch.int8)
    assert torch.equal(matrices._padded_product(first, second), first.int() @ second.int())
    assert taken == [((24, 32), (32, 8))]


@pytest.mark.parametrize("factor", [0.5, 0.37, 1.25, 0.0009765625, 3e-4])
def test_a_rescaling_of_a_module_gives_the_codes_of_two_roundings(factor):
    """Half of an odd number is a tie, and the even neighbour is a code up or a code down."""
    grid, out = Grid(float32(factor), 0, 0, 255), Grid(1.0, 7, 0, 255)
    weight = Weight(torch.tensor([[1], [3]], dtype=torch.int8), WeightGrid(8), torch.tensor([1.0, float32(0.9)]))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (1,), grid), weight, out))
    operation = builder.build().operations[0]
    sums = torch.arange(-1000, 1000, dtype=torch.int32).repeat(2, 1)
    expected = requantize(sums.T, operation.multiplier, out, 0, 255).T
    assert torch.equal(rescaled(operation, sums, out, requantize), expected)


class Rescaled(SimpleNamespace):
    """What of an operation rescaling reads."""

    __hash__ = object.__hash__


def rescaled(operation, sums, grid, exact):
    """Codes of sums (O, M), as a module computes them."""
    limits = operation.clamp_min, operation.clamp_max
    own = Rescaled(multiplier=Rescaling.of(operation, grid, exact), clamp_min=limits[0], clamp_max=limits[1])
    return rescale(sums, own, grid, exact)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(2.0**-20, 4.0),
    st.integers(0, 255),
    st.integers(0, 2**30),
    st.sampled_from([requantize, requantize_product]),
)
@example(0.001, 147, 1, requantize)  # float32 stores some of its products as ties, and no distance tells which
def test_a_traced_rescaling_equals_the_definition(factor, zero_point, seed, exact):
    grid = Grid(1.0, zero_point, 0, 255)
    operation = SimpleNamespace(multiplier=Multiplier.from_float(torch.tensor([factor])), clamp_min=0, clamp_max=250)
    generator = torch.Generator().manual_seed(seed)
    reach = min(int(300 / factor) + 2, 2**24)
    sums = torch.randint(-reach, reach, (1, 3000), generator=generator, dtype=torch.int32)
    expected = exact(sums.T, operation.multiplier, grid, 0, 250).T
    assert torch.equal(rescaled(operation, sums, grid, exact), expected)
