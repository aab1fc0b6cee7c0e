"""Engines of TensorRT-RTX, built for GPUs that are not there: what they multiply and add is int8."""

import builtins

import pytest
import torch

from qat.emitters.tensorrt import conformance, float_ops, islands_in
from qat.emitters.tensorrt.conformance import COMPUTE_CAPABILITIES, EngineLayer, EngineTensor, layer_types, node_types
from qat.errors import ConfigurationError, ExportError, MissingExtraError
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

FULL = Grid(float32(0.02), 0, -128, 127)
SYMMETRIC = Grid(float32(0.021), 0, -127, 127)
SHARE = Grid(float32(1 / 127), 0, 0, 127)


def weight(*shape, bits=8, step=1, seed=0):
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    return Weight(codes, WeightGrid(bits, step), torch.full((shape[0],), 0.5 / half / step))


def convolutions(builder, x):
    stem = builder.conv("stem", x, weight(16, 3, 3, 3), SYMMETRIC, padding=((1, 1), (1, 1)), clamp=(0, 127))
    first = builder.conv("first", stem, weight(16, 16, 3, 3), SYMMETRIC, padding=((1, 1), (1, 1)))
    added = builder.add("added", first, stem, SYMMETRIC, clamp=(0, 127))
    deep = builder.conv("deep", added, weight(16, 1, 3, 3, bits=4, step=16), FULL, groups=16, stride=(2, 2))
    pooled = builder.average_pool("average", builder.max_pool("largest", deep, (2, 2), stride=(1, 1)), (2, 2), FULL)
    active = builder.table("active", pooled, torch.arange(-128, 128).to(torch.int8), FULL)
    flat = builder.mean("mean", active, (2, 3), SYMMETRIC)
    return builder.linear("head", flat, weight(10, 16, bits=4, step=16), FULL)


def attention(builder, x):
    for block in range(2):

        def linear(name, source, seed, block=block, **bits):
            layer = weight(64, 64, seed=seed + 4 * block, **bits)
            return builder.linear(f"{block}/{name}", source, layer, SYMMETRIC)

        normal = builder.normalize(f"{block}/norm", x, (2,), SYMMETRIC)
        query, key, value = (linear(name, normal, seed, bits=4, step=16) for seed, name in enumerate("qkv"))
        turned = builder.transpose(f"{block}/turned", key, (0, 2, 1))
        shares = builder.softmax(f"{block}/shares", builder.matmul(f"{block}/scores", query, turned, FULL), 2, SHARE)
        mixed = builder.matmul(f"{block}/mixed", shares, value, SYMMETRIC)
        x = builder.add(f"{block}/added", x, linear("out", mixed, 3), SYMMETRIC)
    return builder.linear("head", builder.mean("mean", x, (1,), SYMMETRIC), weight(10, 64), FULL)


@pytest.mark.parametrize("compute_capability", COMPUTE_CAPABILITIES)
@pytest.mark.parametrize(
    ("write", "shape", "products", "additions"),
    [(convolutions, (3, 9, 9), 5, 1), (attention, (16, 64), 13, 2)],
)
def test_every_product_and_addition_is_int8(written, write, shape, products, additions, compute_capability):
    _, path = written(write, [shape], [FULL])
    found = node_types(path, compute_capability)
    assert {node.datatype for node in found} == {"Int8"}
    assert [node.kind for node in found].count("Add") == additions and len(found) == products + additions


def test_layers_tell_what_they_read_and_which_nodes_they_compute(written):
    _, path = written(convolutions, [(3, 9, 9)], [FULL])
    layers = layer_types(path)
    stem = next(layer for layer in layers if layer.is_product and "stem/sums" in layer.nodes)
    assert [tensor.datatype for tensor in stem.inputs] == ["Int8"] and stem.constants[0].datatype == "Int8"
    computed = {node for layer in layers for node in layer.nodes}
    assert {"codes/added", "active/found", "mean/sums", "largest/sums"} - computed == {"largest/sums"}


def test_kernels_add_the_bias_before_they_multiply(written):
    """What they are called says what they compute, in order: the bias, then a Relu or a Round, then the multipliers."""

    def write(builder, x):
        bias = torch.arange(1, 17, dtype=torch.int32)
        positive = builder.conv("relu", x, weight(16, 3, 3, 3), SYMMETRIC, bias=bias, clamp=(0, 127))
        any_sign = builder.conv("none", positive, weight(16, 16, 3, 3), SYMMETRIC, bias=bias)
        return builder.linear("fc", builder.mean("mean", any_sign, (2, 3), SYMMETRIC), weight(16, 16), FULL, bias=bias)

    _, path = written(write, [(3, 9, 9)], [FULL])
    names = {
        node: layer.name for layer in layer_types(path) if not layer.is_product for node in layer.nodes
    }  # fmt: skip
    assert "AddReluMulM" in names["codes/relu"]
    assert "AddRounMulM" in names["codes/none"]
    assert "AddMulM" in names["codes/fc"]


def every_move(builder, x, y, ids):
    x = builder.concatenate("joined", (builder.constant("token", torch.ones(1, 6, dtype=torch.int8), FULL), x, y), 1)
    x = builder.pad("padded", builder.slice("cut", x, (0, 0), (8, 6), (2, 1)), ((1, 0), (0, 1)))
    x = builder.take("taken", builder.transpose("turned", x, (0, 2, 1)), 1, [0, 0, 3])
    x = builder.expand("wide", builder.reshape("row", builder.max("top", x, (2,)), (1, 3)), (4, 3))
    values, _ = builder.top_k("best", x, 2, 2)
    rows = builder.embedding("rows", builder.index_sum("sum", ids, ids), weight(9, 2))
    rows = builder.requantize("other", rows, FULL)
    x = builder.mul("product", builder.add("added", rows, values, FULL), values, FULL)
    x = builder.divide("ratio", x, builder.requantize("positive", values, FULL, clamp=(0, 127)), FULL)
    return builder.log_softmax("log", x, 2, FULL), builder.arg_max("place", x, 2)


def test_tensorrt_takes_every_kind_of_operation(written):
    _, path = written(every_move, [(4, 6), (4, 6), (4,)], [FULL, FULL, IndexRange(5)])
    assert layer_types(path, "SM80")


def test_what_the_engine_does_not_run_on_int8_is_a_float_operation(written, monkeypatch):
    program, path = written(
        lambda b, x: b.softmax("soft", b.linear("fc", x, weight(8, 8), FULL), 1, SHARE), [(8,)], [FULL]
    )
    assert islands_in(program, path) == ("soft",)
    floats = float_ops(path)
    read = EngineTensor("x", "Float")
    layer = EngineLayer("fc", "gemm", (read,), (), (EngineTensor("y", "Float"),), ("fc/product",))
    monkeypatch.setattr(conformance, "layer_types", lambda path, compute_capability: (layer,))
    assert float_ops(path) == [*floats, "MatMul fc/product (Float on SM89)"]
    assert islands_in(program, path) == ()
    monkeypatch.setattr(conformance, "tensorrt_version", lambda: None)
    assert float_ops(path) == floats and islands_in(program, path) == ("soft",)


def test_nodes_that_an_equal_one_stands_for_have_no_kernel(written):
    def write(builder, x):
        twice = [builder.linear(name, x, weight(16, 16), FULL) for name in ("first", "second")]
        return builder.add("added", *twice, FULL)

    _, path = written(write, [(4, 16)], [FULL])
    types = {node.name: node.datatype for node in node_types(path)}
    assert sorted(types.values()) == ["Int8", "Int8", "none"] and types["added/sums"] == "Int8"
    assert float_ops(path) == []


def test_a_log_of_another_form_is_refused(written, monkeypatch):
    _, path = written(lambda b, x: b.linear("fc", x, weight(8, 8), FULL), [(8,)], [FULL])
    monkeypatch.setattr(conformance, "_built", lambda path, compute_capability: "Layers:\nfc: int8")
    with pytest.raises(ExportError, match="its log names no layers"):
        layer_types(path)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    def missing(name, *args, original=builtins.__import__, **kwargs):
        if name == "tensorrt_rtx":
            raise ImportError("No module named 'tensorrt_rtx'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "lightning-qat\[tensorrt\]"'):
        layer_types(tmp_path / "model.onnx")


def test_a_gpu_that_engines_are_not_built_for_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="compute_capability is 'SM90'; choose one of SM80, SM89"):
        layer_types(tmp_path / "model.onnx", "SM90")


def test_a_file_that_makes_no_engine_is_refused_with_the_reason(tmp_path):
    (tmp_path / "model.onnx").write_text("nothing")
    with pytest.raises(ExportError, match=r"TensorRT-RTX 1\.\S+ makes no engine of"):
        layer_types(tmp_path / "model.onnx")
