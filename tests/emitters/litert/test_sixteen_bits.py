"""Files of 16-bit codes: the arithmetic of `qat.integer.sixteen_bits` beside the kernels of the runtime."""

import pytest
import pytorch_lightning
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

import qat
import qat.emitters.litert as emitter
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.errors import ConfigurationError, PreparationError, ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import table_codes
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

ENDS = (-32767, 32767)
WIDE, COARSE = Grid(float32(0.0007), 0, *ENDS), Grid(float32(0.02), 0, *ENDS)
RELU = (0, 32767)


def weight(*shape, bits=8):
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, shape, dtype=torch.int8)
    return Weight(codes, WeightGrid(bits), torch.rand(shape[0]) * 0.01 + 0.003)


def bias(count):
    return torch.randint(-(2**20), 2**20, (count,), dtype=torch.int32)


def inside(kinds):
    """The operators between the edges, without those that turn their layout and what keeps -32768 out."""
    return [kind for kind in kinds if kind not in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE", "MAXIMUM")]


ratios = st.floats(-1, 1).map(lambda exponent: 8.0**exponent)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-4, -2), st.tuples(ratios, ratios, ratios, ratios, ratios, ratios))
def test_factors_of_any_scales_are_those_of_the_kernels(tmp_path_factory, exponent, ratios):
    """Every kernel that rescales, on codes over the whole of their grids."""
    first = Grid(float32(10.0**exponent), 0, *ENDS)

    def grid(of, ratio):
        return Grid(float32(of * ratio), 0, *ENDS)

    def wider(name, ratio, times):
        return grid(builder.grid(name).scale * times, ratio)

    builder = ProgramBuilder()
    x, y = builder.input("x", (6, 8, 8), first), builder.input("y", (6, 8, 8), grid(first.scale, ratios[0]))
    torch.manual_seed(0)
    made = [
        builder.conv("conv", x, weight(5, 6, 3, 3), wider(x, ratios[1], 4), bias(5)),
        builder.conv("each", x, weight(6, 1, 3, 3), wider(x, ratios[2], 2), bias(6), groups=6, clamp=RELU),
        builder.linear("linear", y, weight(4, 8), wider(y, ratios[3], 3), bias(4)),
        builder.mean("mean", y, (2, 3), wider(y, ratios[4], 0.3)),
        builder.requantize("times", x, wider(x, ratios[3], 0.4), factor=-0.37),
        builder.mul("mul", x, y, wider(x, ratios[5], builder.scale(y) * 2**14)),
        builder.add("add", x, y, wider(x, ratios[5], 1 + ratios[0])),
        builder.matmul("matmul", x, y, wider(x, ratios[4], builder.scale(y) * 2**15), factor=0.3),
    ]
    for name in made:
        builder.output(f"to {name}", name)
    try:
        program = for_runtime(builder.build("dict"), "litert")
    except ProgramError:  # scales that kernels do not take
        assume(False)
    assert emitter.refusals(program) == []
    path = tmp_path_factory.mktemp("file") / "model.tflite"
    emitter.emit(program, path)  # compares
    assert emitter.float_ops(path) == []
    session = emitter.open_session(path)
    (inputs,) = random_inputs(program, (16,), seed=9)
    results = emitter.run_session(session, inputs)
    expected = outputs_by_name(program, inputs)
    assert {name: int((results[name] != codes).sum()) for name, codes in expected.items()} == dict.fromkeys(expected, 0)


def gelu(builder, x):
    points = torch.arange(ENDS[0], ENDS[1] + 1, dtype=torch.float64) * builder.scale(x)
    return builder.table("t", x, table_codes(torch.nn.functional.gelu(points), COARSE), COARSE)


def difference(builder, x):
    pooled = builder.average_pool("p", builder.negate("n", x), (2, 2), WIDE, stride=(1, 1), padding=((1, 0), (0, 1)))
    return builder.add("a", pooled, builder.constant("k", torch.tensor([[[7]]]), Grid(0.25, 3, 0, 15)), COARSE)


def moved(builder, x):
    cut = builder.slice("s", builder.pad("z", x, ((0, 0), (1, 0), (0, 2))), (0, 1, 0), (4, 7, 8), (1, 2, 1))
    joined = builder.concatenate("c", (cut, builder.take("g", cut, 2, [2, 0, 0])), 2)
    return builder.expand("e", builder.max("m", joined, (3,), keepdim=True), (4, 6, 5))


def flattened(builder, x):
    return builder.linear("l", builder.reshape("f", x, (144,)), weight(5, 144), COARSE)


@pytest.mark.parametrize(
    ("write", "kinds"),
    [
        (lambda b, x: b.conv("c", x, weight(6, 2, 3, 3), COARSE, bias(6), groups=2, clamp=RELU), ["CONV_2D"]),
        (lambda b, x: b.conv("c", x, weight(64, 4, 3, 3, bits=4), COARSE, clamp=(100, 200)), ["CONV_2D", "MINIMUM"]),
        (lambda b, x: b.max_pool("p", x, (3, 3), (2, 2), ((1, 1), (1, 1))), ["PADV2", "MAX_POOL_2D"]),
        (lambda b, x: b.requantize("r", x, WIDE, clamp=(-5, 300)), ["MINIMUM"]),
        (gelu, ["CAST", "ADD", "GATHER"]),
        (difference, ["MUL", "PAD", "DEPTHWISE_CONV_2D", "ADD"]),
        (moved, ["PAD", "STRIDED_SLICE", "GATHER", "CONCATENATION", "REDUCE_MAX", "TILE"]),
        (lambda b, x: b.arg_max("a", x, 1), ["CAST", "ARG_MAX", "CAST"]),
        (
            lambda b, x: b.linear("l", b.reshape("f", x, (144,)), weight(5, 144), COARSE),
            ["RESHAPE", "RESHAPE", "CONV_2D", "RESHAPE"],
        ),
    ],
)
@pytest.mark.parametrize("codes", [False, True])
def test_operations(export, write, kinds, codes):
    found = export(write, grid=WIDE, codes=codes)
    assert found.differing() == 0
    assert inside(found.kinds) == kinds


def test_the_lowest_int16_number_is_no_code(export):
    found = export(lambda b, x: b.linear("l", x, weight(3, 6), WIDE), shape=(6,), grid=WIDE)
    assert found.kinds == ["QUANTIZE", "MAXIMUM", "RESHAPE", "CONV_2D", "RESHAPE", "MAXIMUM", "DEQUANTIZE"]
    (result,) = emitter.run_session(found.session, {"x": torch.full((1, 6), -1e9)}).values()
    assert torch.equal(result, found.program({"x": torch.full((1, 6), -1e9)}))


def test_rows_of_8_bits_are_widened(export):
    rows = Weight(torch.randint(-127, 128, (9, 4), dtype=torch.int8), WeightGrid(8), torch.full((9,), float32(0.01)))
    found = export(
        lambda b, x: b.requantize("r", b.embedding("e", x, rows), Grid(float32(0.00004), 0, *ENDS)),
        shape=(3,), grid=IndexRange(9),
    )  # fmt: skip
    assert found.differing() == 0 and found.kinds[-4:] == ["CAST", "MUL", "MAXIMUM", "DEQUANTIZE"]


class Small(torch.nn.Module):
    """A convolution for all channels and one for each, a sum, a product with a gate, two lines and a matrix product."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.BatchNorm2d(6)
        self.each, self.head = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.nn.Linear(12, 3)

    def forward(self, images):
        x = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.stem(images))), 2)
        y = self.each(x)
        x = torch.nn.functional.gelu(x + y) * torch.sigmoid(y)
        rows = x.flatten(2)
        mixed = (rows @ rows.transpose(1, 2)).mean(2) * 0.1
        return self.head(torch.cat([x.mean((2, 3)), mixed], 1))


class Module(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Small()

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def test_a_network_that_is_trained_with_16_bits_is_its_file_on_every_code(tmp_path):
    labels = torch.arange(24) % 3
    images = torch.rand(24, 1, 8, 8) + labels.view(-1, 1, 1, 1) * 0.5
    loader = DataLoader(TensorDataset(images, labels), 8)
    callback = qat.QATCallback("w8a16", qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=1), target="litert")
    module = Module()
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, callbacks=[callback], logger=False, max_epochs=2,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    grids = {value.grid for value in callback.program.values}
    assert all((grid.zero_point, grid.quant_min, grid.quant_max) == (0, *ENDS) for grid in grids)
    assert callback.report.ok and callback.report.mismatches["fake_quant"].differing == 0
    assert callback.report.files["litert"].mismatch.differing == 0
    path = tmp_path / "integer" / "model.tflite"
    assert emitter.float_ops(path) == [] and "int8" in set(emitter.weight_types(path).values())
    assert {entry.dtype for entry in emitter.operations(path)} == {"float32", "int16", "int32"}


def test_activations_that_no_kernel_takes_are_refused_before_training():
    images = torch.rand(2, 1, 8, 8)
    affine = qat.QuantConfig(activation=qat.QuantSpec(bits=16, signed=False, symmetric=False))
    with pytest.raises(ConfigurationError, match="litert needs signed symmetric activations above 8 bits"):
        qat.prepare(Small(), images, quant=affine, target="litert")
    mixed = qat.QuantConfig(activation=qat.QuantSpec(bits=16), rules=(qat.Rule("0", activation_bits=8),))
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3))
    with pytest.raises(PreparationError, match="Conv '0' .*: LiteRT has kernels for codes of one width"):
        qat.prepare(layers, images, quant=mixed, target="litert")
    with pytest.raises(PreparationError, match="LiteRT has no kernel of 16-bit codes for it; quantize the network's"):
        qat.prepare(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Softmax(1)), images, "w8a16", "litert")
    with pytest.raises(ConfigurationError, match="integer kernels up to 8 bits"):
        qat.prepare(Small(), images, "w8a16", ["litert", "onnxruntime"])


def test_layers_that_enlarge_and_embed_are_equal_on_every_code(tmp_path):
    larger = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(2, 3, 3, stride=2), torch.nn.Upsample(scale_factor=2, mode="bilinear")
    )
    rows = torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Hardswish(), torch.nn.Linear(8, 3))
    for network, x in ((larger, torch.randn(5, 2, 6, 6)), (rows, torch.randint(0, 10, (5, 4)))):
        qat.prepare(network, x, "w8a16", target="litert")
        network(x)
        program = qat.convert(network.eval())
        qat.export(program, tmp_path / "model.tflite", "litert")
        (result,) = emitter.run_session(
            emitter.open_session(tmp_path / "model.tflite"), {program.inputs[0].name: x}
        ).values()
        with torch.no_grad():
            assert torch.equal(network(x), result) and torch.equal(program(x), result)
