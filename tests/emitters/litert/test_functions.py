import pytest
import torch

from qat.emitters.litert.functions import FUNCTIONS, function_of
from qat.integer.operations import Table, table_codes
from qat.integer.values import Grid, IndexRange, float32

SOURCE, TARGET = Grid(float32(0.03), 100, 0, 255), Grid(float32(0.05), 40, 0, 255)


def table(codes, function=""):
    return Table(
        name="t", source="", inputs=("x",), output="y", clamp_min=0, clamp_max=255, codes=codes, function=function
    )


def codes_of(function):
    return table_codes(function((torch.arange(256, dtype=torch.float64) - 100) * SOURCE.scale), TARGET)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_entries_tell_the_function(name):
    codes = codes_of(FUNCTIONS[name])
    found = function_of(table(codes), SOURCE, TARGET)
    assert torch.equal(codes_of(FUNCTIONS[found]), codes)
    assert found == name or {found, name} == {"gelu", "gelu_tanh"}  # which differ by less than half a step


def test_one_other_entry_is_another_function():
    codes = codes_of(torch.sigmoid)
    codes[17] += 1
    assert function_of(table(codes), SOURCE, TARGET) == ""


def test_a_name_is_kept_and_indices_have_none():
    assert function_of(table(codes_of(torch.sigmoid), "erf"), SOURCE, TARGET) == "erf"
    assert function_of(table(codes_of(torch.sigmoid)), IndexRange(256), TARGET) == ""
