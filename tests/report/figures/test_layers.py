import io

import torch
from PIL import Image

from qat.report.figures.layers import sqnr_per_layer, weight_histograms
from qat.report.records import Layer
from qat.report.weights import LayerWeights


def pixels(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_nothing_is_drawn_without_measurements():
    assert sqnr_per_layer([Layer("add")]) is None
    assert weight_histograms({}) is None


def test_a_picture_keeps_its_width_and_grows_with_its_layers():
    layers = [Layer(f"layer{index}", weight_bits=4, sqnr_db=20.0) for index in range(30)]
    few, many = pixels(sqnr_per_layer(layers[:3])), pixels(sqnr_per_layer(layers))
    assert few[0] == many[0] == 1536
    assert many[1] - few[1] == round(27 * 0.34 * 160)


def test_sqnr_below_zero_is_drawn():
    assert sqnr_per_layer([Layer("a", sqnr_db=-3.0, activation_sqnr_db=0.0)]).startswith(b"\x89PNG")


def test_every_width_has_a_histogram():
    layers = {}
    for bits in range(2, 9):
        codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=torch.int8).reshape(2, -1)
        layers[f"layer{bits}"] = LayerWeights(codes, bits, torch.ones(2))
    assert weight_histograms(layers).startswith(b"\x89PNG")


def test_a_layer_whose_weights_are_all_equal_has_a_histogram():
    zeros = LayerWeights(torch.zeros(1, 4, dtype=torch.int8), 4, torch.ones(1))
    assert weight_histograms({"a": zeros}).startswith(b"\x89PNG")
