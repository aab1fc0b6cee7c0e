"""The graph that lowering reads, and which sizes in it are symbols."""

import pytest
import torch
import torch.fx.experimental._config as shape_config
from torch import nn

import qat
from qat.errors import ConversionError
from qat.lowering.exported import export


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids, image):
        return self.last(self.embedding(ids)), self.last(image)


def lengths(module, example, any_length=True):
    handle = qat.prepare(module, example)
    return list(export(module.eval(), handle, any_length).lengths.values())


def test_dimensions_of_token_ids_are_lengths_and_those_of_images_are_not():
    example = torch.zeros(2, 7, dtype=torch.long), torch.randn(2, 3, 5, 4)
    assert [(size.symbol, int(size)) for size in lengths(Pair(), example)] == [("length", 7)]


def test_lengths_are_numbers_where_one_length_is_asked_for():
    example = torch.zeros(2, 7, dtype=torch.long), torch.randn(2, 3, 5, 4)
    assert lengths(Pair(), example, any_length=False) == []


def test_a_dimension_of_one_is_no_length():
    example = torch.zeros(2, 1, dtype=torch.long), torch.randn(2, 3, 5, 4)
    assert lengths(Pair(), example) == []


def test_lengths_are_called_after_their_inputs_where_there_are_several():
    example = torch.zeros(2, 7, dtype=torch.long), torch.randn(2, 5, 4)
    assert [size.symbol for size in lengths(Pair(), example)] == ["length_of_ids_1", "length_of_image_1"]


def test_an_input_that_reaches_no_output_has_no_length():
    class First(Pair):
        def forward(self, ids, image):
            return super().forward(ids, image)[0]

    example = torch.zeros(2, 7, dtype=torch.long), torch.randn(2, 5, 4)
    assert [size.symbol for size in lengths(First(), example)] == ["length"]


def test_torch_is_left_as_it_was():
    class Broken(nn.Linear):
        broken = False

        def forward(self, x):
            if self.broken:
                raise RuntimeError("broken")
            return super().forward(x)

    module, before = Broken(4, 2), shape_config.use_duck_shape
    handle = qat.prepare(module, torch.randn(2, 7, 4))
    export(module.eval(), handle, any_length=True)
    assert shape_config.use_duck_shape is before
    module.broken = True
    with pytest.raises(
        ConversionError, match=r"follow the network at .*test_exported\.py:\d+ \(RuntimeError: broken\)"
    ):
        export(module, handle, any_length=True)
    assert shape_config.use_duck_shape is before


class Halved(nn.Module):
    """Goes a way of its own where all of its values are small."""

    branches = False

    def forward(self, x):
        return x * 0.5 if self.branches and x.amax() < 9 else x + x


def test_what_torch_cannot_follow_is_named_with_its_module_and_its_line():
    network = nn.Sequential(nn.Linear(4, 2), nn.Sequential(Halved()))
    handle = qat.prepare(network, torch.randn(2, 4), target=None)
    network(torch.randn(2, 4))
    network.eval()[1][0].branches = True
    line = Halved.forward.__code__.co_firstlineno + 1
    with pytest.raises(ConversionError, match=rf"cannot follow 1\.0 at {__file__}:{line} \(\w+: "):
        export(network, handle, any_length=True)


class Helped(nn.Module):
    """Computes in a method that is not called forward."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def part(self, x):
        return self.first(x).cumprod(1)

    def forward(self, x):
        return self.part(x)


def test_problems_have_the_line_that_ran_and_not_the_one_in_forward():
    module = Helped()
    qat.prepare(module, torch.randn(2, 7, 4), target=None)
    module(torch.randn(2, 7, 4))
    line = Helped.part.__code__.co_firstlineno + 1
    with pytest.raises(ConversionError, match=rf"cumprod in the network at \S*test_exported.py:{line}: "):
        qat.convert(module.eval())


class Padded(nn.Module):
    """A transformer as torch has it, which would turn to nested tensors and one kernel where nothing is trained."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.encoder = nn.Embedding(30, 8), nn.TransformerEncoder(layer, 1)

    def forward(self, ids):
        return self.encoder(self.embedding(ids), src_key_padding_mask=ids == 0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_a_padded_transformer_of_torch_takes_no_fast_path():
    torch.manual_seed(0)
    module, ids = Padded(), torch.randint(1, 30, (4, 7))
    ids[1, 4:] = 0
    qat.prepare(module, ids)
    module(ids)
    program = qat.convert(module.eval())
    for length in (2, 5, 7):
        shorter = torch.randint(1, 30, (3, length))
        shorter[0, length - 1 :] = 0
        with torch.no_grad():
            assert torch.equal(program(shorter), module(shorter))
