import torch

from qat.emitters.onnxruntime import emit, emit_float, float_ops, open_session, run_session
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import MASK_GRID, table_codes
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

FINE = Grid(float32(0.02), 128, 0, 255)
RELU = Grid(float32(0.02), 0, 0, 255)


def every_operation():
    generator = torch.Generator().manual_seed(3)

    def weight(*shape):
        codes = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
        return Weight(codes, WeightGrid(8), torch.full((shape[0],), 0.7 / (73 * codes[0].numel() ** 0.5)))

    builder = ProgramBuilder()
    x = builder.input("x", (4, 8, 8), FINE)
    y = builder.conv("c", x, weight(4, 4, 3, 3), RELU, padding=((1, 1), (1, 1)), bias=torch.full((4,), 900).int())
    z = builder.conv("d", y, weight(4, 1, 3, 3), FINE, padding=((1, 1), (1, 1)), groups=4, clamp=(128, 200))
    y = builder.add("s", y, z, FINE)
    y = builder.mul("p", y, builder.constant("k", torch.tensor([[[3]]]), Grid(0.25, 0, 0, 15)), FINE)
    y = builder.concatenate("j", (y, builder.requantize("r", y, FINE, factor=-0.5)), 1)
    y = builder.slice("cut", builder.pad("pad", y, ((0, 0), (1, 0), (0, 1))), (0, 1, 0), (8, 9, 8))
    y = builder.average_pool("a", builder.max_pool("m", y, (2, 2)), (2, 2), FINE, stride=(1, 1))
    y = builder.linear("rows", builder.transpose("t", y, (0, 2, 3, 1)), weight(6, 8), FINE)
    builder.output("most", builder.max("amax", y, (1, 2)))
    y = builder.linear("fc", builder.mean("mean", y, (1,), FINE), weight(5, 6), FINE)
    builder.output("logits", builder.linear("last", builder.reshape("flat", y, (15,)), weight(3, 15), FINE))
    return builder.build("dict")


def attention():
    """What transformers are made of, on ids."""
    generator = torch.Generator().manual_seed(4)
    weight = Weight(
        torch.randint(-127, 128, (12, 8), generator=generator).to(torch.int8), WeightGrid(8), torch.full((12,), 0.01)
    )
    builder = ProgramBuilder()
    ids = builder.input("ids", (6,), IndexRange(12))
    rows = builder.embedding("rows", ids, weight)
    token = builder.constant("token", torch.arange(8)[None] * 9, builder.grid(rows))
    rows = builder.requantize("fine", builder.concatenate("join", (token, rows), 1), FINE)
    scores = builder.matmul("scores", rows, builder.transpose("turn", rows, (0, 2, 1)), FINE, factor=0.2)
    real = (torch.arange(256, dtype=torch.float64) - 128) * FINE.scale
    gate = builder.table("gate", scores, table_codes(torch.nn.functional.silu(real), FINE), FINE, function="silu")
    slopes = torch.tensor([[0.5], [1.0], [-1.0], [0.1], [0.2], [0.3], [0.0]], dtype=torch.float64)
    gate = builder.table("prelu", gate, table_codes(torch.where(real > 0, real, slopes * real), FINE), FINE)
    known = torch.tensor([0, 1] * 6, dtype=torch.uint8)
    mask = builder.reshape("mask", builder.table("known", ids, known, MASK_GRID), (6, 1))
    mask = builder.expand("wide", builder.take("take", mask, 1, [0, 0, 1, 2, 3, 4, 5]), (7, 7))
    minus = builder.requantize("minus", builder.negate("negate", gate), FINE)
    chosen = builder.select("select", mask, gate, minus)
    builder.output("mixed", builder.matmul("mixed", chosen, rows, FINE, factor=0.5))
    builder.output("sums", builder.sum("sums", chosen, (2,), Grid(float32(0.1), 128, 0, 255)))
    builder.output("first", builder.arg_max("first", "rows", 1))
    values, indices = builder.top_k("top", "rows", 1, 2)
    builder.output("values", values)
    builder.output("indices", indices)
    return builder.build("dict")


def test_the_float_network_of_attention_on_ids(tmp_path):
    program, path = attention(), tmp_path / "float.onnx"
    emit_float(program, path)
    emit(program, tmp_path / "integer.onnx")
    ids = torch.randint(0, 12, (16, 6), generator=torch.Generator().manual_seed(0))
    real, integer = run_session(open_session(path), {"ids": ids}), program(ids)
    for name in ("first", "values", "indices"):
        assert torch.equal(real[name], integer[name])
    for name in ("mixed", "sums"):
        assert integer[name].std() > 0.3, "a test of constants shows nothing"
        assert (real[name] - integer[name]).abs().max() < 0.15  # of a range of five


def test_the_float_network_is_what_the_integers_stand_for(tmp_path):
    program, path = every_operation(), tmp_path / "float.onnx"
    emit_float(program, path)
    x = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    real, integer = run_session(open_session(path), {"x": x}), program(x)
    for name, output in integer.items():
        assert output.std() > 0.05, "a test of constants shows nothing"
        assert (real[name] - output).abs().max() < 0.1  # five steps of the grid, for rounding in ten layers
    assert float_ops(path)


def nonlinear():
    """Softmax, masked and not, its logarithm, every kind of normalization, and a division."""
    fine, shares = Grid(float32(0.03), 120, 0, 255), Grid(float32(1 / 255), 0, 0, 255)
    builder = ProgramBuilder()
    x, z = builder.input("x", (3, 4, 5), fine), builder.input("z", (3, 4, 5), Grid(float32(0.01), 0, 0, 255))
    mask = builder.constant("mask", torch.ones(1, 4, 5).tril(-1), MASK_GRID)
    gain = torch.linspace(-1, 2, 60).reshape(3, 4, 5)
    for name, dims, settings in (
        ("last", (3,), {"gain": gain[0, 0], "shift": gain[0, 1]}),
        ("group", (2, 3), {"gain": gain[:, :1, :1], "epsilon": 1e-3}),
        ("all", (1, 2, 3), {"gain": gain}),
        ("first", (1,), {}),
        ("rms", (3,), {"centered": False, "gain": gain[0, 0]}),
        ("l2", (3,), {"centered": False, "l2": True, "epsilon": 0.1}),
    ):
        builder.output(name, builder.normalize(f"norm/{name}", x, dims, Grid(float32(0.02), 100, 0, 255), **settings))
    builder.output("quotient", builder.divide("divide", x, z, Grid(float32(0.1), 128, 0, 255)))
    builder.output("masked", builder.softmax("masked/shares", x, 3, shares, mask=mask))
    builder.output("shares", builder.softmax("softmax", x, 2, shares))
    builder.output("log", builder.log_softmax("logs", x, 1, Grid(float32(0.05), 255, 0, 255)))
    return builder.build("dict")


def test_nonlinear_operations_are_near_the_integer_ones(tmp_path):
    program = nonlinear()
    emit_float(program, tmp_path / "float.onnx")
    generator = torch.Generator().manual_seed(0)
    codes = {edge.value: torch.randint(0, 256, (6, 3, 4, 5), generator=generator) for edge in program.inputs}
    inputs = {
        name: (codes[name] - program.value(name).grid.zero_point) * program.value(name).grid.scale for name in codes
    }
    real, integer = run_session(open_session(tmp_path / "float.onnx"), inputs), program(inputs)
    for edge in program.outputs:
        grid = program.value(edge.value).grid
        low, high = (end * grid.scale for end in grid.reach)
        assert (real[edge.name].clamp(low, high) - integer[edge.name]).abs().max() < 0.501 * grid.scale
