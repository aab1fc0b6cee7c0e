from qat.report.page import tiles
from qat.report.records import Layer, RunRecord


def test_the_headline_of_a_full_run():
    run = RunRecord(
        metrics={"float": {"accuracy": 0.9}, "fake_quant": {"accuracy": 0.875}, "integer": {"accuracy": 0.875}},
        size_bytes={"float": 8000, "integer": 2000},
        latency_ms={"float": 0.3, "integer": 0.1},
        layers=(
            Layer("a", weight_bits=8, activation_bits=8, weights=100),
            Layer("b", weight_bits=2, activation_bits=4, weights=500),
        ),
    )
    accuracy, bits, size, latency = tiles(run)
    assert (accuracy.title, accuracy.value) == ("integer accuracy", "87.50 %")
    assert accuracy.note == "float 90.00 % · fake-quantized 87.50 %"
    assert (bits.value, bits.note) == ("3", "weights 2, 8 · activations 4, 8")
    assert (size.value, size.note) == ("4.00×", "8 kB → 2 kB")
    assert (latency.value, latency.note) == ("3.00×", "0.3 ms → 0.1 ms")


def test_the_headline_of_an_empty_run():
    assert [tile.value for tile in tiles(RunRecord())] == ["–", "–", "–", "–"]


def test_what_softmax_and_norms_cost_as_integers():
    run = RunRecord(nonlinear_ms={"integer": 3.0, "float_island": 2.0})
    tile = tiles(run)[-1]
    assert (tile.title, tile.value) == ("softmax, norms: integer / island", "1.50×")
    assert tile.note == "3 ms, as float islands 2 ms"
