"""Quantization without training: what it takes, what it refuses, and that it leaves the network as it was."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConfigurationError, ObservationError
from qat.functional import signal_to_quantization_noise
from qat.inject.handle import handle_of
from qat.post_training import calibrate


def network():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    module[1].eval()  # frozen, while the rest trains
    return module


def batches(count=3):
    return [torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def left_as_it_was(module, fresh):
    state, expected = module.state_dict(), fresh.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert [part.training for part in module.modules()] == [part.training for part in fresh.modules()]
    assert all(parameter.grad is None for parameter in module.parameters())
    return handle_of(module) is None


@pytest.mark.parametrize(
    "quant", ["w8a8", "w4a4", "w2a2", qat.QuantConfig(rules=[qat.Rule("3", weight_bits=4)])], ids=str
)
def test_the_network_is_left_as_it_was(quant):
    module = network()
    random = torch.get_rng_state()
    program = qat.quantize(module, batches(), quant)
    assert torch.equal(torch.get_rng_state(), random)
    assert left_as_it_was(module, network())
    assert program(batches()[0]).shape == (4, 3)


@pytest.mark.parametrize(
    "given",
    [
        lambda: iter(batches()),
        lambda: [(batch, torch.zeros(4)) for batch in batches()],
        lambda: [{"input": batch, "label": torch.zeros(4)} for batch in batches()],
    ],
    ids=["a generator", "pairs", "dicts"],
)
def test_batches_come_in_every_form(given):
    expected = qat.quantize(network(), batches())
    assert torch.equal(qat.quantize(network(), given())(batches()[0]), expected(batches()[0]))


def test_the_mode_in_which_the_network_was_makes_no_difference():
    expected = qat.quantize(network().eval(), batches())
    assert torch.equal(qat.quantize(network(), batches())(batches()[0]), expected(batches()[0]))


def test_eight_bits_are_near_the_float_network():
    module = network()
    program = qat.quantize(module, batches())
    module.eval()
    assert signal_to_quantization_noise(module(batches()[0]).detach(), program(batches()[0])) > 30


def broken():
    yield batches()[0]
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: [], ObservationError, "there are no batches to observe"),
        (
            lambda: torch.rand(4, 1, 6, 6),
            ConfigurationError,
            r"batches is a Tensor; pass a list of batches, e.g. \[inp",
        ),
        (lambda: {"input": torch.rand(4, 1, 6, 6)}, ConfigurationError, "batches is a dict; pass a list"),
        (lambda: [*batches(), torch.rand(0, 1, 6, 6)], ObservationError, "met an empty batch"),
        (lambda: [*batches(), torch.full((4, 1, 6, 6), torch.nan)], ObservationError, "input.input met 144 NaN"),
        (lambda: [{"image": torch.rand(4, 1, 6, 6)}], ConfigurationError, "a dict with the keys image, from which"),
        (broken, OSError, "the disk is gone"),
    ],
)
def test_what_fails_half_way_leaves_the_network_as_it_was_too(given, error, message):
    module = network()
    with pytest.raises(error, match=message):
        qat.quantize(module, given())
    assert left_as_it_was(module, network())


def test_a_layer_left_in_float_is_an_island_of_the_program():
    config = qat.QuantConfig(rules=[qat.Rule("3", quantize=False)])
    program = qat.quantize(network(), batches(), config)
    assert [(island.name, island.function) for island in program.float_operations] == [("3", "conv2d")]


def test_a_module_that_cannot_be_called_is_refused():
    with pytest.raises(ConfigurationError, match="the network is a ModuleList, which has no forward"):
        qat.quantize(nn.ModuleList([nn.Linear(2, 2)]), [torch.rand(2, 2)])


def test_a_calibrated_network_is_prepared_and_final():
    module = network()
    handle = calibrate(module, batches(), "w4a4")
    assert handle_of(module) is handle
    assert handle.state.final and not list(handle.parameters())
    module.eval()
    assert torch.equal(module(batches()[0]), qat.convert(module)(batches()[0]))


EVERY_OPTION = qat.PostTraining(equalize=True, bias_correction=True, adaround=qat.AdaRound(iterations=30))


@pytest.mark.parametrize("quant", ["w8a8", "w4a8", "w4a4", "w2a2"])
@pytest.mark.parametrize(
    "options",
    [
        qat.PostTraining(equalize=True),
        qat.PostTraining(bias_correction=True),
        qat.PostTraining(adaround=qat.AdaRound(iterations=30)),
        EVERY_OPTION,
    ],
    ids=["equalized", "bias corrected", "learned rounding", "all"],
)
def test_with_every_option_forward_program_and_file_have_the_same_codes(options, quant, tmp_path):
    module = network()
    handle = calibrate(module, batches(), quant, options=options)
    module.eval()
    program, outputs = qat.convert(module), module(batches()[0])
    assert torch.equal(program(batches()[0]), outputs)
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", batches(), module=module)
    assert report.ok and {name: each.differing for name, each in report.mismatches.items()} == {
        "onnxruntime": 0,
        "fake_quant": 0,
    }
    handle.remove()
    module.train()
    module[1].eval()
    assert left_as_it_was(module, network())


def test_what_is_written_in_short_is_the_program_of_the_steps():
    program = qat.quantize(network(), batches(), "w4a4", options=EVERY_OPTION)
    calibrate(module := network(), batches(), "w4a4", options=EVERY_OPTION)
    assert torch.equal(program(batches()[0]), qat.convert(module.eval())(batches()[0]))


def test_batches_of_a_generator_are_kept_where_they_are_run_through_again():
    expected = qat.quantize(network(), batches(), "w4a4", options=EVERY_OPTION)
    assert torch.equal(
        qat.quantize(network(), iter(batches()), "w4a4", options=EVERY_OPTION)(batches()[0]), expected(batches()[0])
    )


def test_only_so_many_batches_are_taken():
    def endless():
        while True:
            yield from batches(1)

    program = qat.quantize(network(), endless(), options=qat.PostTraining(batches=2))
    assert torch.equal(program(batches()[0]), qat.quantize(network(), batches(1))(batches()[0]))


def test_learned_rounding_keeps_the_outputs_better():
    module = network().eval()
    expected = module(batches()[0])
    plain, learned = (
        signal_to_quantization_noise(expected, qat.quantize(module, batches(), "w3a8", options=options)(batches()[0]))
        for options in (None, qat.PostTraining(adaround=True, bias_correction=True))
    )
    assert learned > plain + 1


def test_what_fails_while_layers_are_adjusted_leaves_the_network_as_it_was(monkeypatch):
    module = network()
    monkeypatch.setattr("qat.post_training.sequential._correct", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
    with pytest.raises(OSError, match="stopped"):
        qat.quantize(module, batches(), "w4a4", options=EVERY_OPTION)
    assert left_as_it_was(module, network())


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "histogram"])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_observer_serves_activations_and_weights(observer, bits):
    weight = qat.QuantSpec(bits=bits, granularity="per_channel", observer=observer)
    activation = qat.QuantSpec(bits=bits, signed=False, symmetric=False, observer=observer)
    module, config = network(), qat.QuantConfig(weight=weight, activation=activation)
    handle = calibrate(module, batches(), config)
    assert {site.spec.observer for site in handle.plan.sites.values()} == {observer}
    module.eval()
    assert torch.equal(module(batches()[0]), qat.convert(module)(batches()[0]))


def test_a_chosen_observer_is_taken_below_eight_bits_too():
    x = [torch.cat([torch.rand(999, 4), torch.full((1, 4), 50.0)])]
    extremes = qat.QuantSpec(bits=4, signed=False, symmetric=False, observer="minmax")
    percentile = qat.QuantSpec(bits=4, signed=False, symmetric=False, observer="percentile", percentile=99.0)
    largest = []
    for activation in (extremes, percentile):
        handle = calibrate(nn.Sequential(nn.Linear(4, 4)), x, qat.QuantConfig(activation=activation, edge_bits=4))
        scale = handle.quantizers["input.input"].qparams().scale
        largest.append(float(scale) * 15)
    assert largest[0] == pytest.approx(50.0) and 0.9 < largest[1] < 1.1


@pytest.mark.parametrize("quant", ["w4-weight-only", "w4-dynamic"])
@pytest.mark.parametrize(
    "options", [qat.PostTraining(bias_correction=True), qat.PostTraining(adaround=qat.AdaRound(iterations=50))]
)
def test_options_serve_networks_whose_activations_stay_real(quant, options):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    x = torch.randn(256, 64) @ torch.randn(64, 64)
    expected = module(x)

    def noise(options):
        handle = calibrate(module, [x], quant, options=options)
        found = (module(x) - expected).square().mean().item()
        handle.remove()
        return found

    assert noise(options) < 0.9 * noise(None)
