"""Programs that take raw pictures."""

import dataclasses
import json

import pytest
import torch

from qat.errors import ProgramError
from qat.integer import storage
from qat.integer.builder import ProgramBuilder
from qat.integer.image_input import network_input
from qat.integer.images import ImageScaling
from qat.integer.program import Grid, IntegerProgram, Table, Transpose
from qat.integer.values import Weight, WeightGrid, float32

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRID = Grid(float32(0.01875), 113, 0, 255)
BYTE = Grid(float32(1 / 255), 0, 0, 255)


def network(grid=GRID, channels=3, more=False) -> IntegerProgram:
    """A convolution of 4 by 5 pictures."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (2, channels, 3, 3), dtype=torch.int8, generator=generator)
    builder = ProgramBuilder()
    builder.input("image", (channels, 4, 5), grid)
    weight = Weight(codes, WeightGrid(8), torch.full((2,), 0.01))
    result = builder.conv("conv", "image", weight, Grid(float32(0.2), 128, 0, 255), padding=((1, 1), (1, 1)))
    if more:
        builder.input("other", (2, 4, 5), grid)
        result = builder.add("sum", result, "other", Grid(float32(0.2), 128, 0, 255))
    builder.output("y", result)
    return builder.build()


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def kinds(program):
    return [type(operation) for operation in program.operations]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("grid", [GRID, Grid(float32(0.01875), -15, -128, 127), Grid(0.3125, 7, 0, 15)])
def test_pictures_give_the_codes_of_normalized_numbers(channels_last, grid):
    program = network(grid)
    raw = program.with_image_input(MEAN, STD, channels_last)
    batch = pictures(7, 4, 5, 3) if channels_last else pictures(7, 3, 4, 5)
    channels_first = batch.permute(0, 3, 1, 2) if channels_last else batch
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (MEAN, STD))
    assert torch.equal(raw(batch), program((channels_first.float() / 255 - mean) / std))
    assert raw.value(raw.inputs[0].value).shape == ((4, 5, 3) if channels_last else (3, 4, 5))


def test_one_table_serves_channels_that_are_scaled_alike():
    (table, _) = network().with_image_input(0.5, 0.25).operations
    assert table.codes.shape == (256,)
    (table, _) = network().with_image_input(MEAN, STD).operations
    assert table.codes.shape == (3, 256)


@pytest.mark.parametrize("grid", [BYTE, Grid(BYTE.scale, -128, -128, 127)])
def test_a_table_that_changes_nothing_is_left_out(grid):
    program = network(grid)
    raw = program.with_image_input()
    assert kinds(raw) == kinds(program)
    assert torch.equal(raw(pictures(2, 3, 4, 5)), program(pictures(2, 3, 4, 5).float() / 255))
    last = program.with_image_input(channels_last=True)
    assert kinds(last) == [Transpose, *kinds(program)]
    assert torch.equal(last(pictures(2, 4, 5, 3)), program(pictures(2, 4, 5, 3).permute(0, 3, 1, 2).float() / 255))


def test_a_table_remains_where_pixels_end_before_255():
    assert Table in kinds(network(BYTE).with_image_input(largest=16))


@pytest.mark.parametrize("grid", [GRID, BYTE])
@pytest.mark.parametrize("channels_last", [False, True])
def test_real_edges_give_the_program_of_before(grid, channels_last):
    program = network(grid)
    back = program.with_image_input(channels_last=channels_last).with_real_edges()
    assert back.inputs == program.inputs and back.values == program.values
    assert back.operations == program.operations


def test_the_network_s_own_input_is_known():
    raw = network().with_image_input(MEAN, STD, channels_last=True)
    assert network_input(raw, raw.inputs[0]).name == "image"
    assert network_input(raw, raw.inputs[0]).grid == GRID


def test_one_of_several_inputs_is_chosen_by_name():
    program = network(channels=3, more=True)
    raw = program.with_image_input(MEAN, STD, input="image")
    other = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(2))
    real = ImageScaling(MEAN, STD).normalize(pictures(2, 3, 4, 5))
    assert torch.equal(raw((pictures(2, 3, 4, 5), other)), program((real, other)))
    both = raw.with_image_input(input="other")
    assert all(edge.image is not None for edge in both.inputs)
    with pytest.raises(ProgramError, match="has the inputs image, other; say which is the picture with input="):
        program.with_image_input()
    with pytest.raises(ProgramError, match="no input is named 'picture'"):
        program.with_image_input(input="picture")


def test_pictures_and_codes_are_not_scaled_again():
    with pytest.raises(ProgramError, match="is a picture already"):
        network().with_image_input().with_image_input()
    with pytest.raises(ProgramError, match="takes codes"):
        network().with_integer_edges("image").with_image_input()


def test_a_program_of_pictures_is_stored(tmp_path):
    raw = network().with_image_input(MEAN, STD, channels_last=True)
    raw.save(tmp_path)
    loaded = IntegerProgram.load(tmp_path)
    assert loaded.inputs == raw.inputs and loaded.inputs[0].image == ImageScaling(MEAN, STD, channels_last=True)
    assert torch.equal(loaded(pictures(2, 4, 5, 3)), raw(pictures(2, 4, 5, 3)))


def test_files_of_before_there_were_pictures_are_read(tmp_path):
    network().save(tmp_path)
    path = tmp_path / storage.JSON_NAME
    document = json.loads(path.read_text())
    for edge in document["inputs"]:
        del edge["image"]
    path.write_text(json.dumps(document | {"sha256": storage._digest(document)}))
    assert IntegerProgram.load(tmp_path).inputs == network().inputs


def test_a_scaling_that_the_table_does_not_have_is_refused():
    raw = network().with_image_input(MEAN, STD)
    (edge,) = raw.inputs
    with pytest.raises(ProgramError, match="'image' does not become what its mean"):
        dataclasses.replace(raw, inputs=(dataclasses.replace(edge, image=ImageScaling(0.5, STD)),))
    with pytest.raises(ProgramError, match="'image' does not become what its mean"):
        dataclasses.replace(raw, inputs=(dataclasses.replace(edge, image=ImageScaling(MEAN, STD, 255, True)),))
    with pytest.raises(ProgramError, match="takes pictures, whose pixels are codes"):
        dataclasses.replace(edge, codes=False)
