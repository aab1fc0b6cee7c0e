import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from qat.emitters.options import FileOperation
from qat.emitters.tensorrt.readback import QDQFile, operations
from qat.integer.values import Grid

SYMMETRIC = Grid(0.5, 0, -128, 127)


def file_of(tmp_path, nodes, **constants):
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "model.onnx")
    return QDQFile(tmp_path / "model.onnx")


def node(kind, inputs, output):
    return helper.make_node(kind, inputs, [output], name=output)


def quantized(source, name):
    grid = ["scale", "zero"]
    return [node("QuantizeLinear", [source, *grid], f"{name}/q"), node("DequantizeLinear", [f"{name}/q", *grid], name)]


GRID = {"scale": numpy.float32(0.5), "zero": numpy.int8(0)}


def test_between_two_quantizations_one_function_of_real_numbers_makes_all_of_them_real(tmp_path):
    nodes = [
        *quantized("x", "a"),
        node("Mul", ["a", "a"], "square"),
        node("Sqrt", ["square"], "root"),
        *quantized("root", "b"),
        node("Mul", ["b", "b"], "whole"),
        *quantized("whole", "y"),
    ]
    file = file_of(tmp_path, nodes, **GRID)
    assert [entry.name for entry in file.float_nodes()] == ["square", "root"]


def test_products_of_what_is_not_quantized_are_real(tmp_path):
    nodes = [*quantized("x", "a"), node("MatMul", ["a", "weight"], "product"), *quantized("product", "y")]
    file = file_of(tmp_path, nodes, weight=numpy.ones((2, 2), numpy.float32), **GRID)
    assert [entry.name for entry in file.float_nodes()] == ["product"]


def test_products_and_additions_of_two_values_are_found(tmp_path):
    nodes = [
        *quantized("x", "a"),
        node("DequantizeLinear", ["codes", "scale", "zero"], "weight"),
        node("Transpose", ["weight"], "turned"),
        node("MatMul", ["a", "turned"], "product"),
        node("Add", ["product", "bias"], "biased"),
        *quantized("biased", "b"),
        node("Add", ["a", "b"], "sum"),
        *quantized("sum", "y"),
    ]
    file = file_of(tmp_path, nodes, codes=numpy.ones((2, 2), numpy.int8), bias=numpy.ones(2, numpy.float32), **GRID)
    assert [entry.name for entry in file.products()] == ["product"]
    assert [entry.name for entry in file.additions()] == ["sum"]
    assert not file.float_nodes()
    found = {entry.name: entry for entry in operations(tmp_path / "model.onnx")}
    assert found["weight"] == FileOperation("weight", "DequantizeLinear", "int8", 4)
    assert found["a/q"] == FileOperation("a/q", "QuantizeLinear", "int8", 4 + 1)
    assert found["biased"] == FileOperation("biased", "Add", "int8", 8)


def test_operations_tell_whole_numbers_from_real_ones(written):
    def write(builder, x):
        return builder.softmax("soft", builder.add("sum", x, x, SYMMETRIC), 1, SYMMETRIC)

    _, path = written(write, [(6,)], [SYMMETRIC])
    found = {entry.name: (entry.kind, entry.dtype) for entry in operations(path)}
    assert found["sum/sums"] == ("Add", "int8")
    assert found["soft/real"] == ("Softmax", "float32")
