import pytest
import torch

from qat.errors import ProgramError
from qat.integer.codec import MAX_LIST, Decoder, Encoder
from qat.integer.operations import Slice
from qat.integer.values import Constant, Grid, IndexRange, Value, Weight, WeightGrid

GRID = Grid(0.5, 3, 0, 15)
CUT = Slice(name="cut", source="net", inputs=("x",), output="cut", starts=(0, 1), ends=(2, 4), steps=(1, 2))


def there_and_back(item, owner="item"):
    encoder = Encoder()
    fields = encoder.fields(item, owner)
    decoder = Decoder(encoder.tensors)
    result = decoder.fields(fields, type(item), owner)
    decoder.check_all_used()
    return fields, result


def test_values_are_plain_json_and_come_back():
    fields, grid = there_and_back(GRID)
    assert fields == {"scale": 0.5, "zero_point": 3, "quant_min": 0, "quant_max": 15}
    assert grid == GRID
    fields, cut = there_and_back(CUT)
    assert fields["starts"] == [0, 1] and cut.starts == (0, 1)


def test_tensors_go_by_name_to_a_table():
    constant = Constant("k", GRID, torch.tensor([[1], [15]], dtype=torch.uint8))
    encoder = Encoder()
    assert encoder.fields(constant, "constant.k")["codes"] == "constant.k.codes"
    assert encoder.tensors["constant.k.codes"].tolist() == [[1], [15]]
    _, again = there_and_back(constant)
    assert torch.equal(again.codes, constant.codes) and again.grid == GRID


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_are_packed_at_their_width(bits):
    half = 2 ** (bits - 1)
    codes = torch.arange(-half, half).to(torch.int8).reshape(2, half)
    weight = Weight(codes, WeightGrid(bits), torch.ones(2))
    encoder = Encoder()
    value = encoder.value(weight, "w")
    assert value["shape"] == [2, half]
    assert encoder.tensors["w.codes"].numel() == 2 * half * bits // 8
    again = Decoder(encoder.tensors).value(value, Weight, "w")
    assert torch.equal(again.codes, codes) and again.grid == weight.grid


def fields_with(**changes):
    return Encoder().fields(CUT, "") | changes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (fields_with(more=1), "a Slice has .* expected exactly"),
        ([1], "a Slice has list"),
        (fields_with(name=5), "cut.name is '5'; expected str"),
        (fields_with(name="x" * 2000), "expected str"),
        (fields_with(starts="01"), "expected a list"),
        (fields_with(starts=[0] * (MAX_LIST + 1)), "expected a list of at most"),
        (fields_with(starts=[0, True]), "cut.starts is 'True'; expected int"),
        (fields_with(starts=[0, 2**60]), "expected int"),
        (fields_with(starts=[0, 1.0]), "cut.starts is '1.0'; expected int"),
    ],
)
def test_fields_of_another_type_are_refused(fields, message):
    with pytest.raises(ProgramError, match=message):
        Decoder({}).fields(fields, Slice, "cut")


def test_a_number_is_finite_and_written_with_a_point():
    for wrong in (1, "0.5", float("nan"), float("inf"), None):
        with pytest.raises(ProgramError, match="scale is .*; expected float"):
            Decoder({}).fields(Encoder().fields(GRID, "") | {"scale": wrong}, Grid, "grid")


def test_a_tensor_is_used_exactly_once():
    decoder = Decoder({"a": torch.zeros(1), "b": torch.zeros(1)})
    decoder.value("a", torch.Tensor, "field")
    with pytest.raises(ProgramError, match="'a' is missing, or used twice"):
        decoder.value("a", torch.Tensor, "field")
    with pytest.raises(ProgramError, match="'b' belongs to nothing"):
        decoder.check_all_used()


def test_a_grid_may_be_a_range_of_indices():
    fields, value = there_and_back(Value("ids", (3,), IndexRange(9)))
    assert fields["grid"] == {"count": 9} and value == Value("ids", (3,), IndexRange(9))
    _, value = there_and_back(Value("x", (3,), GRID))
    assert value.grid == GRID
    for grid in ({"count": 0}, {"count": "9"}, {"counts": 9}, {"count": 9, "scale": 0.5}, 9, None):
        with pytest.raises(ProgramError, match="counts 0|expected int|expected Grid or IndexRange"):
            Decoder({}).fields({"name": "ids", "shape": [3], "grid": grid}, Value, "values")


def test_equal_weights_are_stored_once_at_each_width_and_shape():
    codes = torch.tensor([[1, -2], [3, 0]], dtype=torch.int8)
    weights = [
        Weight(codes, WeightGrid(4), torch.tensor([0.5, 0.5])),
        Weight(codes.clone(), WeightGrid(4, 16), torch.tensor([0.25, 0.125])),
        Weight(codes, WeightGrid(8), torch.tensor([0.5, 0.5])),
        Weight(codes.reshape(2, 2, 1), WeightGrid(4), torch.tensor([0.5, 0.5])),
    ]
    encoder = Encoder()
    entries = [encoder.value(weight, f"layer{place}") for place, weight in enumerate(weights)]
    assert [entry["codes"] for entry in entries] == ["layer0.codes", "layer0.codes", "layer2.codes", "layer3.codes"]
    decoder = Decoder(encoder.tensors)
    for weight, entry in zip(weights, entries, strict=True):
        again = decoder.value(entry, Weight, "again")
        assert torch.equal(again.codes, weight.codes) and again.grid == weight.grid
        assert torch.equal(again.scale, weight.scale)
    decoder.check_all_used()
    with pytest.raises(ProgramError, match="is missing, or used twice"):
        decoder.value(entries[3] | {"codes": "layer2.codes", "scale": "layer2.scale"}, Weight, "again")
