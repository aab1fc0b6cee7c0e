import pytest
import torch
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import Graph, pads_of
from qat.errors import ExportError
from qat.integer.values import Weight, WeightGrid


def stored(bits, step=1, offset=0):
    half = 2 ** (bits - 1)
    codes = torch.arange(-half, half, dtype=torch.int16).to(torch.int8).reshape(2, -1)
    graph = Graph()
    graph.weight("w", Weight(codes, WeightGrid(bits, step, offset), torch.ones(2)))
    return graph


@pytest.mark.parametrize(
    ("bits", "kind", "size"),
    [(2, TensorProto.INT2, 1), (3, TensorProto.INT4, 4), (4, TensorProto.INT4, 8)],
)
def test_narrow_weights_take_a_narrow_type(bits, kind, size):
    tensor = stored(bits).initializers["w/codes"]
    assert tensor.data_type == kind
    assert len(tensor.raw_data) == size


def test_four_bit_codes_lie_low_nibble_first():
    assert stored(4).initializers["w/codes"].raw_data[:2] == bytes([0x98, 0xBA])  # -8, -7, -6, -5


def test_wide_weights_are_plain_int8():
    graph = stored(5, step=4)
    assert graph.initializers["w"].data_type == TensorProto.INT8
    assert not graph.nodes


def test_a_step_and_an_offset_are_applied_in_int32():
    assert [node.op_type for node in stored(4).nodes] == ["Cast"]
    assert [node.op_type for node in stored(4, 16).nodes] == ["Cast", "Mul", "Cast"]
    assert [node.op_type for node in stored(2, 64, 32).nodes] == ["Cast", "Mul", "Add", "Cast"]


def test_the_lowest_opset_that_suffices_is_taken():
    assert stored(4).opset == 21
    assert stored(2).opset == 25


def test_a_name_is_taken_once():
    graph = Graph()
    graph.claim("x")
    with pytest.raises(ExportError, match="'x'"):
        graph.constant("x", 1, "int32")


def test_pads_are_all_befores_then_all_afters():
    assert pads_of(((1, 2), (3, 4))) == [1, 3, 2, 4]
